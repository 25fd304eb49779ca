"""Folders in diffusers' format: what is loaded, and what is refused with which words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_pipelines import make_pipeline

from pcm_ros.models import sentence
from pcm_ros.models.diffusion import DiffusionModel
from pcm_ros.models.loading import ModelUnavailable


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize(
    ("decoder", "prediction", "text"),
    [
        ("AutoencoderKL", "epsilon", "CLIPTextModel"),
        ("", "epsilon", "CLIPTextModel"),
        ("AutoencoderTiny", "v_prediction", "SentenceTokens"),
    ],
)
def test_pipelines_are_loaded_and_their_noise_is_taken_off(tmp_path: Path, decoder: str, prediction: str, text: str, solver: str) -> None:
    model = DiffusionModel(make_pipeline(tmp_path, decoder, prediction, text), solver)
    assert model.size == 32
    shape = model.latent_shape(32, 32)
    sample = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    first, second = model.clean(sample, torch.tensor(500), ["", "a red mug"])
    assert first.shape == sample.shape
    assert not torch.equal(first, second)  # the words matter
    assert torch.allclose(model.clean(sample, torch.tensor(500), ["a red mug"])[0], second, atol=1e-4)
    picture = model.decode(sample.requires_grad_())
    assert picture.shape == (2, 3, 32, 32)
    (gradient,) = torch.autograd.grad(picture.square().sum(), sample)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
def test_a_solver_that_is_told_the_clean_sample_arrives_there(folder: Path, solver: str) -> None:
    model = DiffusionModel(folder, solver)
    steps = model.new_solver()
    steps.set_timesteps(10)
    generator = torch.Generator().manual_seed(1)
    target = torch.randn((1, *model.latent_shape(32, 32)), generator=generator)
    sample = torch.randn(target.shape, generator=generator)
    for timestep in steps.timesteps:
        sample = steps.step(target, timestep, sample, return_dict=False)[0]
    assert torch.allclose(sample, target, atol=0.05)


@pytest.mark.parametrize("size", [(33, 32), (32, 0), (32, -8), (2048, 32), (36, 36)])
def test_sizes_that_do_not_fit(folder: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="allowed: multiples of 8 from 8 to 1024; the model's own is 32"):
        DiffusionModel(folder).latent_shape(*size)


def test_an_unknown_solver(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"scheduler is 'euler'; allowed: ddim, dpm-solver\+\+"):
        DiffusionModel(folder, "euler")


def copied(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_an_unknown_scheduler_in_the_folder(folder: Path, tmp_path: Path) -> None:
    where = copied(folder, tmp_path)
    (where / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"}))
    with pytest.raises(ModelUnavailable, match="has the scheduler 'FlowMatchEulerDiscreteScheduler'; known: DDIMScheduler"):
        DiffusionModel(where)


def test_a_cut_off_file(folder: Path, tmp_path: Path) -> None:
    where = copied(folder, tmp_path)
    weights = where / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="unet' cannot be loaded"):
        DiffusionModel(where)


def test_a_cut_off_sentence_encoder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "sentence"
    shutil.copytree(sentence.embedded_folder(), where)
    weights = next(where.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    monkeypatch.setattr(sentence, "embedded_folder", lambda: where)
    for make in (lambda: DiffusionModel(folder), sentence.SentenceEncoder):
        with pytest.raises(ModelUnavailable, match=r"sentence encoder: '.*' can't be loaded .*remedy: reinstall"):
            make()


def test_a_schedule_that_no_solver_makes(folder: Path, tmp_path: Path) -> None:
    where = copied(folder, tmp_path)
    path = where / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_schedule": "sigmoid"}))
    with pytest.raises(ModelUnavailable, match=r"without size or a schedule that is known \(sigmoid"):
        DiffusionModel(where)


@pytest.mark.parametrize(("text", "longest"), [("CLIPTextModel", 12), ("SentenceTokens", 30)])
def test_how_much_of_a_text_is_cut_off(tmp_path: Path, text: str, longest: int) -> None:
    """MiniLM has a token at each end beside those of the words."""
    model = DiffusionModel(make_pipeline(tmp_path, "", "epsilon", text))
    assert [model.excess(" ".join(["red"] * count)) for count in (0, 1, longest, longest + 1, longest + 40)] == [0, 0, 0, 1, 40]
    whole, cut = (model.embed(" ".join(["red"] * longest + more))[0] for more in ([], ["mug"]))
    assert torch.equal(whole, cut), "what is too much changes nothing"


def test_a_pickle_is_not_opened(folder: Path, tmp_path: Path) -> None:
    where = copied(folder, tmp_path)
    (where / "unet" / "diffusion_pytorch_model.safetensors").rename(where / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match=r"only pickle weights \(diffusion_pytorch_model.bin\), which can run code"):
        DiffusionModel(where)
    with pytest.raises(ModelUnavailable, match="pickle checkpoints can run code"):
        DiffusionModel(tmp_path / "model.ckpt")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_classes_that_are_not_known_are_never_made(folder: Path, tmp_path: Path, part: str) -> None:
    where = copied(folder, tmp_path)
    index = json.loads((where / "model_index.json").read_text())
    index[part] = ["os", "system"]
    (where / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelUnavailable, match=r"'system'.*; known: "):
        DiffusionModel(where)


def test_no_folder_and_a_damaged_index(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"model_index.json' does not exist; remedy: give a folder"):
        DiffusionModel(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        DiffusionModel(tmp_path)
