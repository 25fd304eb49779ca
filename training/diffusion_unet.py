"""Train the denoiser of the embedded latent diffusion model, conditioned on MiniLM's token states by cross-attention.

    python -m training.diffusion_unet --data training/diffusion_data --autoencoder pcm_ros/models/weights/diffusion/vae \\
        --work /tmp/unet --minutes 180 --out pcm_ros/models/weights/diffusion

v-prediction (Salimans & Ho, arXiv 2202.00512) with min-SNR weights (Hang et al., arXiv 2303.09556, gamma 5), cosine schedule (Nichol &
Dhariwal, arXiv 2102.09672), captions left out of DROPPED of the rows for classifier-free guidance (Ho & Salimans, arXiv 2207.12598),
average of the weights. Latents and token states are computed once, into <work>. A killed run goes on from <work>/state.pt.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from pathlib import Path

import numpy as np
import torch

from pcm_ros.models.diffusion import TOKENS, SentenceTokens
from pcm_ros.models.sentence import DIMENSIONS
from pcm_ros.models.torchvision_shim import prepare_torchvision
from training.card import write_card
from training.diffusion_data import Progress, as_input, average_into, captions, keep, pictures, rate, shards, shuffled

# Most work is done at 8 x 8 and 4 x 4: at 16 x 16 there are 32 channels and no attention, which would cost most there.
CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 128, 192),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": DIMENSIONS,
    "attention_head_dim": 32,
    "norm_num_groups": 16,
}
SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["pcm_ros", "SentenceTokens"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
}
DROPPED = 0.1
DATA = (
    "Pictures of one to three things on a plain table, rendered by PyBullet's TinyRenderer (training/diffusion_scenes.py), with captions "
    "of colours, kinds, counts and relations. Nine colour + kind pairs, one in twelve sets of things and the shades of the test split are "
    "left out."
)
LIMITS = (
    "Paints mugs, bowls, blocks, cans, bottles, plates and ducks of twelve colours, up to three, at 64 x 64 pixels; knows no photographs "
    "and no other things. Held-out figures: error of v on pictures of sets and shades that were left out."
)
GAMMA = 5.0


class Latents:
    """Latents and token states of one split, computed once and kept in a folder.

    Attributes:
        latents: (N, 4, 16, 16) float16. texts: (N, C) int32, rows of the captions of each picture.
        start: (T + 1,) int64, where the token states of each text begin in `tokens` (memory map (sum of lengths, 384) float16).
    """

    def __init__(self, folder: Path, data: Path, split: str, autoencoder: Path, most: int, text_encoder: SentenceTokens) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "done").exists():
            _prepare(folder, shards(data, split)[:most], autoencoder, text_encoder)
        self.latents = torch.from_numpy(np.load(folder / "latents.npy"))
        self.texts, self.start = np.load(folder / "texts.npy"), np.load(folder / "start.npy")
        self._tokens = np.memmap(folder / "tokens.f16", np.float16, "r", shape=(int(self.start[-1]), DIMENSIONS))
        empty, self._empty_mask = text_encoder.encode([""])
        self._empty = empty[0]

    def __len__(self) -> int:
        return len(self.latents)

    def conditions(self, texts: np.ndarray, dropped: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 32, 384) float32 token states and (B, 32) bool of these texts (B,), of the empty text where `dropped`."""
        states = torch.zeros((len(texts), TOKENS, DIMENSIONS))
        mask = torch.zeros((len(texts), TOKENS), dtype=torch.bool)
        for row, (text, drop) in enumerate(zip(texts, dropped, strict=True)):
            if drop:
                states[row], mask[row] = self._empty, self._empty_mask[0]
                continue
            part = np.asarray(self._tokens[self.start[text] : self.start[text + 1]], dtype=np.float32)
            states[row, : len(part)], mask[row, : len(part)] = torch.from_numpy(part), True
        return states, mask


@torch.inference_mode()
def _prepare(folder: Path, paths: list[Path], autoencoder: Path, text_encoder: SentenceTokens) -> None:
    from diffusers import AutoencoderTiny

    network = AutoencoderTiny.from_pretrained(autoencoder, torch_dtype=torch.float32).eval()
    latents, said = [], []
    for path in paths:
        for part in np.array_split(pictures(path), 12):
            coded = network.encode(as_input(part)).latents * network.config.scaling_factor
            latents.append(coded.half().numpy())
        said += captions(path)
    unique = {text: number for number, text in enumerate(sorted({text for texts in said for text in texts}, key=lambda t: (len(t), t)))}
    lengths, every = [0], list(unique)
    with (folder / "tokens.f16").open("wb") as file:
        for start in range(0, len(every), 128):
            states, mask = text_encoder.encode(every[start : start + 128])
            file.write(states[mask].half().numpy().tobytes())  # row by row, without the padding
            lengths.extend(mask.sum(dim=1).tolist())
    np.save(folder / "latents.npy", np.concatenate(latents))
    np.save(folder / "texts.npy", np.array([[unique[text] for text in texts] for texts in said], dtype=np.int32))
    np.save(folder / "start.npy", np.cumsum(lengths))
    (folder / "done").write_text(json.dumps({"pictures": len(said), "texts": len(unique)}))
    print(f"{folder}: {len(said)} pictures, {len(unique)} texts", flush=True)


def loss_of(
    network: torch.nn.Module,
    alphas: torch.Tensor,
    x: torch.Tensor,
    noise: torch.Tensor,
    steps: torch.Tensor,
    condition: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """(B,) weighted squared error of v for clean latents x (B, 4, 16, 16) at timesteps (B,)."""
    a = alphas[steps][:, None, None, None]
    noisy = (a.sqrt() * x + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        v = network(noisy, steps, encoder_hidden_states=condition[0], encoder_attention_mask=condition[1]).sample
    error = (v.float() - (a.sqrt() * noise - (1 - a).sqrt() * x)).square().mean(dim=(1, 2, 3))
    ratio = a.flatten() / (1 - a.flatten())
    return error * torch.minimum(ratio, torch.tensor(GAMMA)) / (ratio + 1) * 2


@torch.inference_mode()
def evaluate(network: torch.nn.Module, alphas: torch.Tensor, held_out: Latents, count: int = 512) -> dict[str, float]:
    """Weighted and plain error of v on pictures of held-out sets and shades; noise and timesteps are always the same."""
    generator, rng = torch.Generator().manual_seed(5), np.random.default_rng(5)
    rows = np.sort(rng.permutation(len(held_out))[:count])
    weighted = []
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        x = held_out.latents[torch.from_numpy(part)].float()
        noise = torch.randn(x.shape, generator=generator)
        steps = torch.randint(0, len(alphas), (len(part),), generator=generator)
        condition = held_out.conditions(held_out.texts[part, 0], np.zeros(len(part), dtype=bool))
        weighted.append(loss_of(network, alphas, x, noise, steps, condition))
    return {"loss": round(float(torch.cat(weighted).mean()), 5), "n": len(rows)}


def save(network: torch.nn.Module, autoencoder: Path, out: Path) -> None:
    """The whole model in diffusers' folder format, half precision."""
    import shutil

    from diffusers import DDIMScheduler

    half = copy.deepcopy(network).half()
    half.save_pretrained(out / "unet", safe_serialization=True)
    if autoencoder.resolve() != (out / "vae").resolve():
        shutil.copytree(autoencoder, out / "vae", dirs_exist_ok=True)
    DDIMScheduler(**SCHEDULE, set_alpha_to_one=True, timestep_spacing="trailing").save_pretrained(out / "scheduler")
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=1) + "\n")


def describe(out: Path, figures: dict[str, float], training: dict[str, float]) -> None:
    """The model card, beside the folder."""
    weights = out / "unet" / "diffusion_pytorch_model.safetensors"
    command = f"python -m training.diffusion_unet --minutes {training['minutes']:g} --seed {training['seed']}"
    autoencoder = out / "vae" / "held_out.json"
    held_out = {"v_loss": figures, "autoencoder": json.loads(autoencoder.read_text()) if autoencoder.exists() else {}}
    made = write_card(weights, "diffusion", "latent diffusion, see training/diffusion_unet.py", command, held_out, training, DATA, LIMITS)
    card = {**json.loads(made.read_text()), "name": out.name, "bytes": sum(path.stat().st_size for path in out.glob("*/*.safetensors"))}
    made.unlink()
    out.with_name(out.name + ".card.json").write_text(json.dumps(card, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/diffusion_data"))
    parser.add_argument("--autoencoder", type=Path, required=True, help="folder that training/diffusion_autoencoder.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for latents, state.pt and log.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for the whole model, in diffusers' format")
    parser.add_argument("--minutes", type=float, default=180)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--shards", type=int, default=30, help="at most so many shards are read")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    options.work.mkdir(parents=True, exist_ok=True)
    prepare_torchvision()
    from diffusers import DDIMScheduler, UNet2DConditionModel

    text_encoder = SentenceTokens()
    data = Latents(options.work / "train", options.data, "train", options.autoencoder, options.shards, text_encoder)
    held_out = Latents(options.work / "test", options.data, "test", options.autoencoder, 1, text_encoder)
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.float()
    torch.manual_seed(options.seed)
    network = UNet2DConditionModel(**CONFIG).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.01, betas=(0.9, 0.99))
    step, seconds, state_file = 0, 0.0, options.work / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, seconds = state["step"], state["seconds"]
    rng = np.random.default_rng([options.seed, step])
    generator = torch.Generator().manual_seed(options.seed + step)
    progress, losses, saved = Progress(options.work, options.minutes, seconds), [], 0.0
    progress.log(step=step, parameters=sum(p.numel() for p in network.parameters()), pictures=len(data))

    def store() -> None:
        state = {"network": network.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        keep(state_file, {**state, "step": step, "seconds": progress.seconds})

    for rows in shuffled(rng, len(data), options.batch):
        if progress.share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate(progress.share, step, options.rate)
        x = data.latents[torch.from_numpy(rows)].float()
        # one timestep from each of `batch` slices of the schedule: less noisy a gradient than independent ones
        slices = (torch.arange(len(x)) + torch.rand(len(x), generator=generator)) / len(x)
        steps = (slices * len(alphas)).long().clamp_max(len(alphas) - 1)
        noise = torch.randn(x.shape, generator=generator)
        said = data.texts[rows, rng.integers(data.texts.shape[1], size=len(rows))]
        condition = data.conditions(said, rng.random(len(rows)) < DROPPED)
        loss = loss_of(network, alphas, x, noise, steps, condition).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        average_into(average, network, step)
        losses.append(float(loss.detach()))
        if step % 50 == 0:
            progress.log(step=step, loss=round(float(np.mean(losses)), 5), rate=round(optimiser.param_groups[0]["lr"], 7))
            losses.clear()
        if step % 500 == 0 or progress.seconds - saved > 600:
            saved = progress.seconds
            store()
            progress.log(step=step, held_out=evaluate(average, alphas, held_out))
            save(average, options.autoencoder, options.out)
    store()
    figures = evaluate(average, alphas, held_out)
    progress.log(step=step, held_out=figures)
    save(average, options.autoencoder, options.out)
    summary = {**figures, "steps": step, "batch": options.batch, "pictures": len(data), "minutes": options.minutes, "seed": options.seed}
    (options.out / "held_out.json").write_text(json.dumps(summary) + "\n")
    describe(options.out, figures, summary)


if __name__ == "__main__":
    main()
