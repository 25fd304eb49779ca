"""Colours, textures and lights: what things look like. Names and shades come from the XKCD colour survey (CC0, shipped with matplotlib)."""

from __future__ import annotations

import colorsys
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Rgb = tuple[float, float, float]

# The colour words that the project speaks of, with the prototype (sRGB, 0..1) that decides which survey shades are unambiguous.
PROTOTYPES: dict[str, Rgb] = {
    "red": (0.85, 0.08, 0.08),
    "orange": (0.98, 0.50, 0.05),
    "yellow": (0.98, 0.92, 0.15),
    "green": (0.12, 0.62, 0.16),
    "cyan": (0.10, 0.85, 0.88),
    "blue": (0.10, 0.20, 0.85),
    "purple": (0.50, 0.12, 0.62),
    "pink": (1.00, 0.55, 0.75),
    "brown": (0.42, 0.24, 0.08),
    "black": (0.12, 0.12, 0.12),
    "white": (0.93, 0.93, 0.93),
    "gray": (0.52, 0.52, 0.52),
}
COLORS = tuple(PROTOTYPES)
_SURVEY_WORDS = {"grey": "gray", "gray": "gray", "aqua": "cyan", "turquoise": "cyan", "violet": "purple"}


@dataclass(frozen=True)
class Shade:
    """One concrete colour: `name` is the colour word, `survey_name` the survey's name for it, `rgb` sRGB 0..1."""

    name: str
    survey_name: str
    rgb: Rgb


def lab(rgb: Rgb) -> npt.NDArray[np.float32]:
    """CIE L*a*b* (3,) of an sRGB colour."""
    return cv2.cvtColor(np.array([[rgb]], dtype=np.float32), cv2.COLOR_RGB2LAB)[0, 0]


def nearest_color(rgb: Rgb) -> tuple[str, float]:
    """The colour word whose prototype is nearest in L*a*b*, and how much nearer it is than the second (0 = tie, 1 = far ahead)."""
    distances = sorted((float(np.linalg.norm(lab(rgb) - lab(proto))), name) for name, proto in PROTOTYPES.items())
    return distances[0][1], 1 - distances[0][0] / max(distances[1][0], 1e-6)


@functools.cache
def shades(split: str) -> dict[str, tuple[Shade, ...]]:
    """Unambiguous survey shades by colour word. Of every three, one is kept for `split="test"` and never shown in training.

    Args:
        split: "train" or "test".

    Raises:
        ValueError: another split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is '{split}'; allowed: 'train', 'test'")
    from matplotlib.colors import XKCD_COLORS, to_rgb

    found: dict[str, list[Shade]] = {name: [] for name in COLORS}
    for survey_name, value in sorted(XKCD_COLORS.items()):
        words = survey_name.removeprefix("xkcd:").split()
        word = _SURVEY_WORDS.get(words[-1], words[-1])
        rgb = to_rgb(value)
        nearest, lead = nearest_color(rgb)
        if word in found and nearest == word and lead > 0.25 and not any(other in COLORS and other != word for other in words[:-1]):
            shown = tuple(float(np.clip(c, 0.10, 0.93)) for c in rgb)  # pure black and white show no shape under any light
            found[word].append(Shade(word, survey_name.removeprefix("xkcd:"), shown))  # type: ignore[arg-type]
    for name, listed in found.items():  # colours of which the survey has few shades: prototypes at other brightness
        if len(listed) < 6:
            for step, scale in enumerate((1.0, 0.92, 0.85, 0.96, 0.88, 0.8)):
                listed.append(Shade(name, f"{name} {step}", tuple(float(c * scale) for c in PROTOTYPES[name])))  # type: ignore[arg-type]
    return {name: tuple(shade for i, shade in enumerate(listed) if (i % 3 == 1) == (split == "test")) for name, listed in found.items()}


def sample_shade(rng: np.random.Generator, split: str, name: str | None = None) -> Shade:
    """A shade of the colour word `name` (any if None); training shades are jittered a little in brightness and saturation."""
    name = name or COLORS[rng.integers(len(COLORS))]
    choices = shades(split)[name]
    shade = choices[rng.integers(len(choices))]
    if split == "test":
        return shade
    h, s, v = colorsys.rgb_to_hsv(*shade.rgb)
    rgb = colorsys.hsv_to_rgb(
        (h + rng.normal(0, 0.006)) % 1.0, float(np.clip(s + rng.normal(0, 0.04), 0, 1)), float(np.clip(v + rng.normal(0, 0.04), 0, 1))
    )
    return Shade(name, shade.survey_name, rgb) if nearest_color(rgb)[0] == name else shade


@functools.cache
def _survey() -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """L*a*b* (S, 3) of all survey colours whose last word is one of COLORS, and that word."""
    from matplotlib.colors import XKCD_COLORS, to_rgb

    named = [(to_rgb(value), survey_name.removeprefix("xkcd:").split()[-1]) for survey_name, value in sorted(XKCD_COLORS.items())]
    named = [(rgb, _SURVEY_WORDS.get(word, word)) for rgb, word in named]
    known = [(lab(rgb), word) for rgb, word in named if word in COLORS]
    return np.stack([point for point, _ in known]), tuple(word for _, word in known)


def called(rgb: Rgb, neighbours: int = 7) -> dict[str, float]:
    """What people call a colour: the shares of the words of its nearest colours in the survey."""
    points, words = _survey()
    nearest = np.argsort(np.linalg.norm(points - lab(rgb), axis=1), kind="stable")[:neighbours]
    return {word: sum(words[i] == word for i in nearest) / neighbours for word in {words[i] for i in nearest}}


def unseen_shade(rng: np.random.Generator, name: str, least: float = 7.0) -> Shade:
    """A shade between or beside the training shades that a person still calls by the colour word.

    Args:
        name: one of COLORS.
        least: L*a*b* distance from every training shade. Where colours are too few and too close for it (black), the farthest of many.
    """
    training = np.stack([lab(shade.rgb) for shade in shades("train")[name]])
    best: tuple[float, Rgb] | None = None
    for _ in range(400):
        base = PROTOTYPES[name]
        hue, saturation, value = colorsys.rgb_to_hsv(*base)
        rgb = colorsys.hsv_to_rgb(
            float(rng.random()) if saturation < 0.05 else (hue + rng.normal(0, 0.035)) % 1.0,
            float(np.clip(saturation + rng.normal(0, 0.02 if saturation < 0.05 else 0.15), 0, 1)),
            float(np.clip(value + rng.normal(0, 0.05 if saturation < 0.05 else 0.12), 0, 1)),
        )
        shown: Rgb = (float(np.clip(rgb[0], 0.10, 0.93)), float(np.clip(rgb[1], 0.10, 0.93)), float(np.clip(rgb[2], 0.10, 0.93)))
        nearest, lead = nearest_color(shown)
        few = name in ("black", "white", "cyan")  # the survey has hardly any colour of these words
        visible = name in ("black", "gray", "brown") or max(shown) > 0.32  # darker ones are taken for black
        if nearest == name and lead > 0.42 and visible and (few or called(shown).get(name, 0.0) > 0.7):
            apart = float(np.linalg.norm(training - lab(shown), axis=1).min())
            if best is None or apart > best[0]:
                best = (apart, shown)
            if apart >= least:
                break
    if best is None:
        raise RuntimeError(f"no shade in 400 draws that people would call '{name}'")
    return Shade(name, f"unseen {name}", best[1])


@dataclass(frozen=True)
class Light:
    """TinyRenderer's light: direction (world, towards the light), colour 0..1, ambient/diffuse/specular coefficients, shadows."""

    direction: tuple[float, float, float] = (0.4, 0.3, 1.0)
    color: Rgb = (1.0, 1.0, 1.0)
    ambient: float = 0.55
    diffuse: float = 0.45
    specular: float = 0.05
    shadow: bool = False


def sample_light(rng: np.random.Generator) -> Light:
    """A light of random direction, slightly tinted colour and strength; one in five casts shadows."""
    tilt, turn = rng.uniform(0.0, 0.9), rng.uniform(0, 2 * np.pi)
    direction = (float(np.sin(tilt) * np.cos(turn)), float(np.sin(tilt) * np.sin(turn)), float(np.cos(tilt)))
    ambient = float(rng.uniform(0.40, 0.70))
    tint = 1.0 - rng.uniform(0, 0.12, 3)
    return Light(
        direction, tuple(tint.tolist()), ambient, float(rng.uniform(0.25, 0.55)), float(rng.uniform(0.0, 0.25)), bool(rng.random() < 0.2)
    )


def texture_image(rng: np.random.Generator, size: int = 256) -> npt.NDArray[np.uint8]:
    """A procedural surface picture (size, size, 3) uint8: plain, grain, checks, stripes, speckle or clouds of random colours."""
    a, b = rng.uniform(0.15, 1.0, (2, 3))
    if rng.random() < 0.6:  # most tables are not colourful
        a, b = a.mean() + 0.25 * (a - a.mean()), b.mean() + 0.25 * (b - b.mean())
    kind = rng.integers(6)
    y, x = np.mgrid[0:size, 0:size] / size
    if kind == 0:
        mix = np.zeros((size, size))
    elif kind == 1:
        grain = cv2.resize(rng.random((size, 8)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
        mix = np.clip(grain, 0, 1) * rng.uniform(0.3, 0.9)
    elif kind == 2:
        n = rng.integers(2, 14)
        mix = ((np.floor(x * n) + np.floor(y * n)) % 2) * rng.uniform(0.2, 1.0)
    elif kind == 3:
        turn = rng.uniform(0, np.pi)
        mix = (np.sin((x * np.cos(turn) + y * np.sin(turn)) * rng.uniform(10, 120)) > 0) * rng.uniform(0.1, 0.8)
    elif kind == 4:
        mix = rng.random((size, size)) * rng.uniform(0.1, 0.7)
    else:
        cells = int(rng.integers(3, 24))
        mix = cv2.resize(rng.random((cells, cells)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
        mix = np.clip(mix, 0, 1)
    image = a + (b - a) * np.asarray(mix)[..., None]
    return (np.clip(image + rng.normal(0, 0.01, image.shape), 0, 1) * 255).astype(np.uint8)


def load_texture(client: int, image: npt.NDArray[np.uint8]) -> int:
    """Hand an (H, W, 3) uint8 picture to PyBullet; returns its texture id."""
    import pybullet

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texture.png"
        cv2.imwrite(str(path), image[..., ::-1])
        return int(pybullet.loadTexture(str(path), physicsClientId=client))
