"""The vision models of the package, each loaded once a process."""

from __future__ import annotations

import functools

from pcm_ros.models.clip import Clip
from pcm_ros.models.color_statistics import ColorStatistics
from pcm_ros.models.image_tower import ImageTower
from pcm_ros.models.registry import entry
from pcm_ros.models.segmentation import TextSegmenter
from pcm_ros.models.tower_clip import TowerClip


@functools.cache
def embedded_segmenter() -> TextSegmenter:
    """Raises ModelUnavailable."""
    return TextSegmenter(entry("segmenter", "segmenter").files[0])


@functools.cache
def embedded_image_tower() -> ImageTower:
    """Raises ModelUnavailable."""
    return ImageTower(entry("efficientnet-lite0", "image").files[0])


@functools.cache
def embedded_clip(name: str) -> Clip | TowerClip:
    """The CLIP of a name. Raises ModelUnavailable."""
    weights, *others = entry(name, "clip").files
    if not others:
        return TowerClip(name, weights, ColorStatistics())
    return Clip(others[0], weights) if others[0].suffix == ".json" else TowerClip(name, weights, embedded_image_tower())
