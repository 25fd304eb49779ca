"""Train the autoencoder of the latent diffusion model: 64 x 64 pictures <-> 16 x 16 latents of four channels.

    python -m training.diffusion_autoencoder --data training/diffusion_data --work runs/autoencoder --device cuda --seconds 150 \\
        --out pcm_ros/models/weights/diffusion/vae

diffusers' AutoencoderTiny (the architecture of TAESD, github.com/madebyollin/taesd): plain dense 3x3 convolutions without normalisation,
which CPUs are fast at. Latents are held near zero mean and unit deviation by a small penalty and get
noise while training, so that the decoder forgives what the denoiser gets slightly wrong. A killed run goes on from <work>/state.pt.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from pcm_ros.models.torchvision_shim import prepare_torchvision
from training.diffusion_data import Progress, as_input, average_into, keep, pictures, shards, shuffled
from training.learning_rate import set_learning_rate
from training.precision import mixed_precision

CONFIG = {
    "encoder_block_out_channels": (48, 48, 48),
    "decoder_block_out_channels": (48, 48, 48),
    "num_encoder_blocks": (1, 1, 2),
    "num_decoder_blocks": (3, 2, 1),
    "latent_channels": 4,
}
NOISE = 0.08  # deviation of what is added to the latents, whose own is about 1


def loss_of(network: torch.nn.Module, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss, and the mean absolute error of pixels (0..2 scale) in it. noise: (N, 4, 16, 16) standard normal."""
    with mixed_precision(x.device):
        latents = network.encode(x).latents
        y = network.decode(latents + NOISE * noise).sample
    y, z = y.float(), latents.float()
    pixels = (y - x).abs().mean()
    edges = sum((torch.diff(y, dim=d) - torch.diff(x, dim=d)).abs().mean() for d in (2, 3))
    # lightness is learnt first and nearly suffices for the errors above: colours, which prompts are about, weigh more
    colors = ((y - y.mean(dim=1, keepdim=True)) - (x - x.mean(dim=1, keepdim=True))).abs().mean()
    far = functional.mse_loss(functional.avg_pool2d(y, 4), functional.avg_pool2d(x, 4))
    spread = (z.mean(dim=(0, 2, 3)).square() + (z.std(dim=(0, 2, 3)) - 1).square()).mean()
    return pixels + 2 * colors + 0.5 * edges + 2 * far + 0.05 * spread, pixels.detach()


@torch.inference_mode()
def evaluate(network: torch.nn.Module, rgb: torch.Tensor) -> dict[str, float]:
    """PSNR in dB and mean absolute error (0..255) of reconstructions of held-out pictures, deviation and mean of the latents."""
    squares, absolute, latents = [], [], []
    for start in range(0, len(rgb), 64):
        x = as_input(rgb[start : start + 64])
        z = network.encode(x).latents
        y = network.decode(z).sample.clamp(-1, 1)
        squares.append(((y - x) / 2).square().mean(dim=(1, 2, 3)))
        absolute.append(((y - x).abs() * 127.5).mean())
        latents.append(z)
    every = torch.cat(latents)
    return {
        "psnr": float((-10 * torch.cat(squares).log10()).mean()),
        "absolute": float(torch.stack(absolute).mean()),
        "latent_std": float(every.std()),
        "latent_mean": float(every.mean()),
        "n": len(rgb),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("training/diffusion_data"))
    parser.add_argument("--work", type=Path, required=True, help="folder for state.pt and log.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for the result, in diffusers' format")
    parser.add_argument("--device", default="cpu", help="of torch: cpu, cuda")
    parser.add_argument("--seconds", type=float, default=2400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--shards", type=int, default=100, help="at most so many shards are read")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = torch.device(options.device)
    options.work.mkdir(parents=True, exist_ok=True)
    prepare_torchvision()
    from diffusers import AutoencoderTiny

    torch.manual_seed(options.seed)
    network = AutoencoderTiny(**CONFIG).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-4, fused=device.type == "cuda")
    step, seconds, state_file = 0, 0.0, options.work / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, seconds = state["step"], state["seconds"]
    rgb = torch.from_numpy(np.concatenate([pictures(path) for path in shards(options.data, "train")[: options.shards]])).to(device)
    held_out = torch.from_numpy(pictures(shards(options.data, "test")[0])[:400]).to(device)
    generator = torch.Generator(device).manual_seed(options.seed + step)
    progress, losses = Progress(options.work, options.seconds, seconds), list[torch.Tensor]()

    def save() -> None:
        keep(
            state_file,
            {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "seconds": progress.seconds,
            },
        )

    for rows in shuffled(generator, len(rgb), options.batch):
        if progress.share >= 1:
            break
        set_learning_rate(optimiser, options.rate, step, progress.share, warm_up=200)
        x = as_input(rgb[rows])
        mirrored = torch.rand(len(x), 1, 1, 1, generator=generator, device=device) < 0.5
        x = torch.where(mirrored, x.flip(3), x).contiguous(memory_format=torch.channels_last)
        loss, pixels = loss_of(network, x, torch.randn((len(x), 4, 16, 16), generator=generator, device=device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        average_into(average, network, step)
        losses.append(pixels)
        if step % 100 == 0:
            mean = float(torch.stack(losses).mean()) * 127.5
            progress.log(step=step, absolute=round(mean, 3), rate=optimiser.param_groups[0]["lr"])
            losses.clear()
        if step % 1000 == 0:
            save()
            progress.log(step=step, held_out=evaluate(average, held_out))
    save()
    figures = evaluate(average, held_out)
    progress.log(step=step, held_out=figures, pictures=len(rgb))
    average.register_to_config(scaling_factor=1 / figures["latent_std"])
    average.half().cpu().save_pretrained(options.out, safe_serialization=True)
    config = json.loads((options.out / "config.json").read_text())
    config.pop("block_out_channels", None)  # the library writes it, and warns of it when it reads it
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (options.out / "held_out.json").write_text(
        json.dumps({**figures, "steps": step, "pictures": len(rgb), "seconds": round(progress.seconds), "seed": options.seed}) + "\n"
    )


if __name__ == "__main__":
    main()
