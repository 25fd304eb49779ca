"""Train the denoiser of the embedded latent diffusion model, conditioned on MiniLM's token states by cross-attention.

    python -m training.diffusion_unet --data training/diffusion_data --autoencoder pcm_ros/models/weights/diffusion/vae \\
        --work runs/unet --device cuda --seconds 400 --out pcm_ros/models/weights/diffusion

v-prediction (Salimans & Ho, arXiv 2202.00512) with min-SNR weights (Hang et al., arXiv 2303.09556, gamma 5), cosine schedule (Nichol &
Dhariwal, arXiv 2102.09672), captions left out of DROPPED of the rows for classifier-free guidance (Ho & Salimans, arXiv 2207.12598),
average of the weights. Latents and token states are computed once and stay on the device. A killed run goes on from <work>/state.pt.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from pcm_ros.models.diffusion import SentenceTokens
from pcm_ros.models.sentence import DIMENSIONS
from pcm_ros.models.torchvision_shim import prepare_torchvision
from training.card import write_card
from training.diffusion_data import Progress, as_input, average_into, captions, keep, pictures, shards, shuffled, truths
from training.learning_rate import set_learning_rate
from training.precision import mixed_precision

# Most work is done at 8 x 8 and 4 x 4: at 16 x 16 there are 64 channels and no attention, which would cost most there.
CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 128, 224),
    "layers_per_block": 2,
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
    """Latents and token states of one split, on a device.

    Attributes:
        latents: (M, N, 4, 16, 16) float16, of N pictures and, where M is 2, of their mirror images.
        texts: (M, N, C) int64, rows of `tokens`: captions of each. tokens: (T, 32, 384) float16. mask: (T, 32) bool. The last is of "".
    """

    def __init__(
        self,
        data: Path,
        split: str,
        autoencoder: Path,
        text_encoder: SentenceTokens,
        device: torch.device,
        most: int,
        count: int = 3,
        mirrored: bool = True,
    ) -> None:
        from diffusers import AutoencoderTiny

        paths = shards(data, split)[:most]
        rng, mirrors = np.random.default_rng(len(paths)), (False, True)[: 1 + mirrored]
        said = [[texts for path in paths for texts in captions(truths(path), count, rng, mirror)] for mirror in mirrors]
        unique = {text: row for row, text in enumerate(sorted({t for part in said for texts in part for t in texts}, key=len))}
        every = [*unique, ""]
        encoded = [text_encoder.encode(every[start : start + 1024]) for start in range(0, len(every), 1024)]
        self.tokens = torch.cat([states.half() for states, _ in encoded])
        self.mask = torch.cat([mask for _, mask in encoded])
        self.texts = torch.tensor([[[unique[text] for text in texts] for texts in part] for part in said], device=device)
        network = AutoencoderTiny.from_pretrained(autoencoder, torch_dtype=torch.float32).eval().to(device)
        coded: list[list[torch.Tensor]] = [[] for _ in mirrors]
        with torch.inference_mode():
            for path in paths:
                for rgb in torch.from_numpy(pictures(path)).split(200):
                    x = as_input(rgb.to(device))
                    for part, mirror in zip(coded, mirrors, strict=True):
                        part.append((network.encode(x.flip(3) if mirror else x).latents * network.config.scaling_factor).half())
        self.latents = torch.stack([torch.cat(part) for part in coded])
        print(f"{split}: {len(self)} pictures, {len(unique)} texts", flush=True)

    def __len__(self) -> int:
        return self.latents.shape[1]

    def conditions(self, texts: torch.Tensor, dropped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 32, 384) float32 token states and (B, 32) bool of these texts (B,), of the empty text where `dropped` (B,) bool."""
        rows = texts.masked_fill(dropped, len(self.tokens) - 1)
        return self.tokens[rows].float(), self.mask[rows]


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
    with mixed_precision(x.device):
        v = network(noisy, steps, encoder_hidden_states=condition[0], encoder_attention_mask=condition[1]).sample
    error = (v.float() - (a.sqrt() * noise - (1 - a).sqrt() * x)).square().mean(dim=(1, 2, 3))
    ratio = a.flatten() / (1 - a.flatten())
    return error * ratio.clamp_max(GAMMA) / (ratio + 1) * 2


@torch.inference_mode()
def evaluate(network: torch.nn.Module, alphas: torch.Tensor, held_out: Latents, count: int = 512) -> dict[str, float]:
    """Weighted and plain error of v on pictures of held-out sets and shades; noise and timesteps are always the same."""
    generator = torch.Generator().manual_seed(5)
    device = held_out.latents.device
    weighted = []
    for rows in torch.randperm(len(held_out), generator=generator)[:count].split(64):
        x = held_out.latents[0, rows.to(device)].float()
        noise = torch.randn(x.shape, generator=generator).to(device)
        steps = torch.randint(0, len(alphas), (len(rows),), generator=generator).to(device)
        condition = held_out.conditions(held_out.texts[0, rows.to(device), 0], torch.zeros(len(rows), dtype=torch.bool, device=device))
        weighted.append(loss_of(network, alphas, x, noise, steps, condition))
    return {"loss": round(float(torch.cat(weighted).mean()), 5), "n": min(count, len(held_out))}


def save(network: torch.nn.Module, autoencoder: Path, out: Path) -> None:
    """The whole model in diffusers' folder format, half precision."""
    import shutil

    from diffusers import DDIMScheduler

    half = copy.deepcopy(network).half().cpu()
    half.save_pretrained(out / "unet", safe_serialization=True)
    if autoencoder.resolve() != (out / "vae").resolve():
        shutil.copytree(autoencoder, out / "vae", dirs_exist_ok=True)
    DDIMScheduler(**SCHEDULE, set_alpha_to_one=True, timestep_spacing="trailing").save_pretrained(out / "scheduler")
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=1) + "\n")


def describe(out: Path, figures: dict[str, float], training: dict[str, float]) -> None:
    """The model card, beside the folder."""
    weights = out / "unet" / "diffusion_pytorch_model.safetensors"
    options = " ".join(f"--{key} {training[key]:g}" for key in ("seconds", "batch", "seed"))
    command = f"python -m training.diffusion_unet --device cuda {options}"
    autoencoder = out / "vae" / "held_out.json"
    held_out = {"v_loss": figures, "autoencoder": json.loads(autoencoder.read_text()) if autoencoder.exists() else {}}
    made = write_card(weights, "diffusion", "latent diffusion, see training/diffusion_unet.py", command, held_out, training, DATA, LIMITS)
    parts = sorted(out.glob("*/*.safetensors"))
    card = {**json.loads(made.read_text()), "name": out.name, "bytes": sum(path.stat().st_size for path in parts)}
    others = {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in parts if path != weights}
    card |= {"sha256_of": others}
    made.unlink()
    out.with_name(out.name + ".card.json").write_text(json.dumps(card, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/diffusion_data"))
    parser.add_argument("--autoencoder", type=Path, required=True, help="folder that training/diffusion_autoencoder.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for latents, state.pt and log.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for the whole model, in diffusers' format")
    parser.add_argument("--device", default="cpu", help="of torch: cpu, cuda")
    parser.add_argument("--seconds", type=float, default=10800, help="granted, from when latents and token states are there")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--shards", type=int, default=100, help="at most so many shards are read")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    options.work.mkdir(parents=True, exist_ok=True)
    prepare_torchvision()
    from diffusers import DDIMScheduler, UNet2DConditionModel

    text_encoder = SentenceTokens(device)
    data = Latents(options.data, "train", options.autoencoder, text_encoder, device, options.shards)
    held_out = Latents(options.data, "test", options.autoencoder, text_encoder, device, 1, count=1, mirrored=False)
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.float().to(device)
    torch.manual_seed(options.seed)
    network = UNet2DConditionModel(**CONFIG).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.01, betas=(0.9, 0.99), fused=device.type == "cuda")
    step, seconds, state_file = 0, 0.0, options.work / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, seconds = state["step"], state["seconds"]
    generator = torch.Generator(device).manual_seed(options.seed + step)
    progress, losses, shown = Progress(options.work, options.seconds, seconds), list[torch.Tensor](), 0.0
    progress.log(step=step, parameters=sum(p.numel() for p in network.parameters()), pictures=len(data))

    def store() -> None:
        state = {"network": network.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        keep(state_file, {**state, "step": step, "seconds": progress.seconds})

    for rows in shuffled(generator, len(data), options.batch):
        if progress.share >= 1:
            break
        set_learning_rate(optimiser, options.rate, step, progress.share, warm_up=200)
        draw = torch.rand(4, len(rows), generator=generator, device=device)
        mirrored, said = (draw[0] < 0.5).long(), (draw[1] * data.texts.shape[2]).long()
        x = data.latents[mirrored, rows].float()
        # one timestep from each of `batch` slices of the schedule: less noisy a gradient than independent ones
        slices = (torch.arange(len(x), device=device) + draw[2]) / len(x)
        steps = (slices * len(alphas)).long().clamp_max(len(alphas) - 1)
        noise = torch.randn(x.shape, generator=generator, device=device)
        condition = data.conditions(data.texts[mirrored, rows, said], draw[3] < DROPPED)
        loss = loss_of(network, alphas, x, noise, steps, condition).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        average_into(average, network, step)
        losses.append(loss.detach())
        if step % 100 == 0:
            mean = float(torch.stack(losses).mean())
            progress.log(step=step, loss=round(mean, 5), rate=round(optimiser.param_groups[0]["lr"], 7))
            losses.clear()
        if progress.seconds - shown > 0.2 * options.seconds:
            shown = progress.seconds
            store()
            progress.log(step=step, held_out=evaluate(average, alphas, held_out))
            save(average, options.autoencoder, options.out)
    store()
    figures = evaluate(average, alphas, held_out)
    progress.log(step=step, held_out=figures)
    save(average, options.autoencoder, options.out)
    summary = {
        **figures,
        "steps": step,
        "batch": options.batch,
        "pictures": len(data),
        "seconds": round(progress.seconds),
        "seed": options.seed,
    }
    describe(options.out, figures, summary)


if __name__ == "__main__":
    main()
