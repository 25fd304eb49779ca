"""Weights that are missing, damaged or of another format are refused with a word that helps; nothing is ever unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pcm_ros.models.loading import ModelUnavailable, fast_precision, load_safetensors, set_threads


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save_file({"half": torch.ones(3, 4, dtype=torch.float16) / 3, "count": torch.arange(5)}, path)
    return path


def test_floats_become_float32_and_integers_stay(good: Path) -> None:
    tensors = load_safetensors(good)
    assert tensors["half"].dtype == torch.float32
    assert tensors["half"].shape == (3, 4)
    assert tensors["count"].tolist() == [0, 1, 2, 3, 4]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"nowhere\.safetensors' does not exist; remedy: .*pcm models"):
        load_safetensors(tmp_path / "nowhere.safetensors")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ModelUnavailable, match="does not exist"):
        load_safetensors(tmp_path / "folder.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_truncated_file(good: Path, kept: int) -> None:
    good.write_bytes(good.read_bytes()[:kept])
    with pytest.raises(ModelUnavailable, match=r"good\.safetensors' is corrupt .*remedy"):
        load_safetensors(good)


def test_overwritten_header(good: Path) -> None:
    good.write_bytes(b"\xff" * 64 + good.read_bytes()[64:])
    with pytest.raises(ModelUnavailable, match="is corrupt"):
        load_safetensors(good)


class _Trap:
    """Unpickling this would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "model.bin", "model.pt", "model"])
def test_pickles_are_refused_and_not_run(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "was run"
    (tmp_path / name).write_bytes(pickle.dumps({"weight": _Trap(trace)}))
    with pytest.raises(ModelUnavailable, match=r"is corrupt|only \.safetensors"):
        load_safetensors(tmp_path / name)
    assert not trace.exists()
    torch.save({"weight": torch.ones(3)}, tmp_path / name)
    with pytest.raises(ModelUnavailable, match=r"is corrupt|only \.safetensors"):
        load_safetensors(tmp_path / name)


@pytest.mark.parametrize("text", ["0", "-1", "257", "many", "1.5", ""])
def test_threads_out_of_range(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCM_THREADS", text)
    with pytest.raises(ValueError, match=rf"PCM_THREADS\) is '{text}'; allowed: 1\.\.256"):
        set_threads()


def test_threads_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("PCM_THREADS", "2")
        assert set_threads() == 2 == torch.get_num_threads()
        monkeypatch.delenv("PCM_THREADS")
        assert set_threads() == 1 == torch.get_num_threads()
        assert set_threads(3) == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, torch.float32),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, torch.bfloat16),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bfloat16_is_for_processors_that_do_more_of_it(
    able: dict[str, object], precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert fast_precision() == precision
