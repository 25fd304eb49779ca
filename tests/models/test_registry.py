"""Every model by one name, and what is said of those that are not well."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pcm_ros.models import registry
from pcm_ros.models.loading import ModelUnavailable


def test_the_embedded_models_are_known() -> None:
    known = registry.registry()
    assert {"segmenter", "minilm", "pcm-clip-resnet"} <= set(known)
    assert {known[name].role for name in ("segmenter", "minilm", "pcm-clip-resnet")} == {"segmenter", "sentence", "clip"}
    for model in known.values():
        assert model.files[0].suffix in (".safetensors", ".gguf")
        assert model.licence in ("Apache-2.0", "MIT")


def test_every_embedded_model_is_well() -> None:
    """The files are there and are those that their cards speak of."""
    for model in registry.registry().values():
        assert model.problems() == []
        assert model.size > 100_000
        if model.source == "repository":
            weights = [path for path in model.files if path.suffix == ".safetensors"]
            assert all(model.recorded(path) for path in weights), f"{model.name}: a card says nothing of a file"


@pytest.mark.parametrize(
    ("name", "role"), [("no-such-model", "clip"), ("segmenter", "clip"), ("pcm-clip-resnet", "segmenter"), ("", "clip")]
)
def test_unknown_names_and_other_roles(name: str, role: str) -> None:
    with pytest.raises(ModelUnavailable, match=rf"model '{name}' is not a known {role}; known: .*pcm models") as error:
        registry.entry(name, role)
    right = "pcm-clip-resnet" if role == "clip" else "segmenter"
    assert right in str(error.value)


def test_problems_name_the_file_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    weights = tmp_path / "mine.safetensors"
    mine = registry.ModelEntry("mine", "clip", "repository", (weights, tmp_path / "mine.json"), "MIT")
    assert mine.size == 0
    assert len(mine.problems()) == 2
    assert all("is missing; remedy" in problem for problem in mine.problems())
    weights.write_bytes(b"weights")
    (tmp_path / "mine.json").write_text("{}")
    assert mine.problems() == []
    assert mine.size == 9
    card = {"sha256": hashlib.sha256(b"weights").hexdigest()}
    (tmp_path / "mine.card.json").write_text(json.dumps(card))
    assert mine.problems() == []
    other = tmp_path / "part" / "more.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"more")
    both = registry.ModelEntry("mine", "clip", "repository", (weights, other), "MIT")
    (tmp_path / "mine.card.json").write_text(json.dumps(card | {"sha256_of": {"part/more.safetensors": "0" * 64}}))
    assert ["more.safetensors" in problem for problem in both.problems()] == [True]
    weights.write_bytes(b"weighty")
    (problem,) = mine.problems()
    assert "has SHA-256" in problem
    assert "remedy: reinstall" in problem
