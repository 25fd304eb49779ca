"""What the pixels of a region say of its colour, and nothing of its shape: the image side of the expert on colours.

A dozen and a half numbers instead of a network: an expert that sees so little cannot be led astray by what things of that colour looked
like in training, and knows how unsure it is between neighbours such as brown and red.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

QUANTILES = (10, 25, 50, 75, 90)
# Between these shares of the pixels by lightness lies what is lit, and below the last what lies in shadow.
LIT, SHADED = 0.7, 0.3
STATISTICS = 3 + len(QUANTILES) + 3 + 3 + 3
HIDDEN = 256  # of the projection


class ColorStatistics:
    """Region -> statistics of its CIE L*a*b* colours."""

    def of_regions(self, rgb: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]]) -> Tensor:
        """(R, STATISTICS) float32 of R regions, masks (H, W) bool, not empty, of one (H, W, 3) uint8 image: mean; quantiles of lightness;
        median; means of the lit and of the shaded pixels. Around zero, about one wide."""
        rows = []
        for mask in masks:
            if mask.shape != rgb.shape[:2] or not mask.any():
                raise ValueError(f"mask must be bool {rgb.shape[:2]} with at least one pixel, got {mask.shape} with {int(mask.sum())}")
            pixels = cv2.cvtColor((rgb[mask] / np.float32(255))[None], cv2.COLOR_RGB2LAB)[0]
            pixels = (pixels - np.array([50, 0, 0], np.float32)) / np.array([25, 30, 30], np.float32)
            pixels = pixels[np.argsort(pixels[:, 0], kind="stable")]
            lit, shaded = pixels[int(LIT * len(pixels)) :], pixels[: max(1, int(SHADED * len(pixels)))]
            rows.append(
                np.concatenate(
                    [
                        pixels.mean(axis=0),
                        np.percentile(pixels[:, 0], QUANTILES),
                        np.median(pixels, axis=0),
                        lit.mean(axis=0),
                        shaded.mean(axis=0),
                    ]
                )
            )
        return torch.from_numpy(np.stack(rows).astype(np.float32)) if rows else torch.zeros((0, STATISTICS))

    @staticmethod
    def projection(width: int) -> nn.Module:
        """A network, not trained, from the statistics to `width` numbers. No layer norm: how far a colour is from grey is in the length."""
        return nn.Sequential(nn.Linear(STATISTICS, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width))


def jittered(statistics: Tensor, spread: float) -> Tensor:
    """(N, STATISTICS) of regions of slightly other shades: all colours of a region shifted by one normal draw, `spread` in L*a*b* units
    (lightness by 0.6 of it)."""
    shift = torch.randn(len(statistics), 3) * spread * torch.tensor([0.6 / 25, 1 / 30, 1 / 30])
    several = torch.cat([shift, shift[:, :1].expand(-1, len(QUANTILES)), shift, shift, shift], dim=1)
    return statistics + several
