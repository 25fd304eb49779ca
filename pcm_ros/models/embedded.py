"""The vision models of the package, each loaded once a process."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pcm_ros.models.clip import Clip
from pcm_ros.models.color_statistics import ColorStatistics
from pcm_ros.models.image_tower import ImageTower
from pcm_ros.models.registry import SHAPES, entry
from pcm_ros.models.segmentation import TextSegmenter
from pcm_ros.models.tower_clip import ShapeClip, TowerClip

P = ParamSpec("P")
T = TypeVar("T")
_loading = threading.RLock()


def _once(load: Callable[P, T]) -> Callable[P, T]:
    """Loaded at the first call; threads that call at the same time wait for it."""
    cached = functools.cache(load)

    @functools.wraps(load)
    def locked(*args: P.args, **kwargs: P.kwargs) -> T:
        with _loading:
            return cached(*args, **kwargs)  # type: ignore[arg-type]

    return locked


@_once
def embedded_segmenter() -> TextSegmenter:
    """Raises ModelUnavailable."""
    return TextSegmenter(entry("segmenter", "segmenter").files[0])


@_once
def embedded_image_tower() -> ImageTower:
    """Raises ModelUnavailable."""
    return ImageTower(entry("efficientnet-lite0", "image").files[0])


@_once
def embedded_clip(name: str) -> Clip | TowerClip:
    """The CLIP of a name. Raises ModelUnavailable."""
    weights, *others = entry(name, "clip").files
    if not others:
        return TowerClip(name, weights, ColorStatistics())
    return Clip(others[0], weights) if others[0].suffix == ".json" else TowerClip(name, weights, embedded_image_tower())


@_once
def embedded_shapes() -> ShapeClip:
    """The expert on shapes. Raises ModelUnavailable."""
    return ShapeClip(SHAPES, entry(SHAPES, "shape").files[0])
