"""The shipped generators do what their cards say, on pictures and problems that are made here and that training never saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pybullet
import pytest
import torch
from safetensors.torch import save_file

from pcm_ros.models import registry
from pcm_ros.models.causal_loading import embedded_language_model, load_causal
from pcm_ros.models.diffusion import SentenceTokens
from pcm_ros.models.low_rank import merge_adapter
from pcm_ros.models.torchvision_shim import prepare_torchvision
from pcm_ros.sim.pictures import pictures
from training.diffusion_scenes import as_truth
from training.diffusion_unet import SCHEDULE, Latents, evaluate
from training.maths_adapter import encode, made_up, validation

FOLDER = registry.WEIGHTS / "diffusion"
WORLDS = 8


def card(name: str) -> dict[str, dict[str, object]]:
    figures: dict[str, dict[str, object]] = json.loads((registry.WEIGHTS / f"{name}.card.json").read_text())["held_out"]
    return figures


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one shard of the test split, of worlds that nothing else draws."""
    client = pybullet.connect(pybullet.DIRECT)
    try:
        rows = [row for world in range(WORLDS) for row in pictures(client, 770_077, world, "test")]
    finally:
        pybullet.disconnect(client)
    folder = tmp_path_factory.mktemp("pictures")
    shard = {"rgb": np.stack([rgb for rgb, _ in rows]), "truth": np.stack([as_truth(things) for _, things in rows])}
    save_file({name: torch.from_numpy(part) for name, part in shard.items()}, folder / "test-000-0000.safetensors")
    return folder


@pytest.fixture(scope="module")
def latents(held_out: Path) -> Latents:
    prepare_torchvision()
    return Latents(held_out, "test", FOLDER / "vae", SentenceTokens(), torch.device("cpu"), 1, count=1, mirrored=False)


def test_noise_is_foretold_as_well_as_the_card_says(latents: Latents) -> None:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    network = UNet2DConditionModel.from_pretrained(FOLDER / "unet").float().eval()
    found = evaluate(network, DDIMScheduler(**SCHEDULE).alphas_cumprod.float(), latents, count=96)["loss"]
    promised = card("diffusion")["v_loss"]["loss"]  # type: ignore[index]
    assert promised * 0.75 < found < promised * 1.25, f"{found:.4f}, the card says {promised:.4f}"


def test_pictures_survive_the_autoencoder_as_the_card_says(held_out: Path, latents: Latents) -> None:
    from diffusers import AutoencoderTiny
    from safetensors.torch import load_file

    network = AutoencoderTiny.from_pretrained(FOLDER / "vae").float().eval()
    pictures = load_file(held_out / "test-000-0000.safetensors")["rgb"][:64].permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        again = network.decode(latents.latents[0, :64].float() / network.config.scaling_factor).sample.clamp(-1, 1)
    error = ((again - pictures) / 2).square().mean(dim=(1, 2, 3))
    found = float((-10 * error.log10()).mean())
    promised = card("diffusion")["autoencoder"]["psnr"]
    assert abs(found - promised) < 1.5, f"{found:.1f} dB, the card says {promised:.1f}"  # type: ignore[operator]


def test_solutions_of_new_problems_surprise_the_adapted_model_as_little_as_the_card_says() -> None:
    prepare_torchvision()
    model, tokenizer = load_causal(embedded_language_model(), attention="eager")
    examples = encode(tokenizer, made_up(np.random.default_rng(770_077), 32), 400)
    before = validation(model, examples, tokenizer.pad_token_id)
    merge_adapter(model, registry.WEIGHTS / "maths-adapter.safetensors")
    found = validation(model, examples, tokenizer.pad_token_id)
    promised = card("maths-adapter")["loss_per_token"]["generated"]
    assert found < 1.6 * promised < before / 10, f"{before:.4f} -> {found:.4f} nats a token, the card says {promised:.4f}"  # type: ignore[operator]
