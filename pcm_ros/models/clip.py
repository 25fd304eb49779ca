"""CLIPs in open_clip's own format: a model configuration (.json) and safetensors weights, loaded by open_clip's factory.

The embedded CLIPs were trained on pictures of single regions: an object cut out along its mask, on a plain grey ground, 64 pixels wide.
`region_crop` makes such pictures; training and inference share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pcm_ros.models.loading import ModelUnavailable, load_safetensors
from pcm_ros.models.torchvision_shim import prepare_torchvision

GROUND = 128  # grey around the region
MARGIN = 1.15  # side of the square crop / greatest extent of the region


def region_crop(rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.uint8]:
    """(size, size, 3) uint8: the square around a region, all outside of the mask grey.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool with at least one True.

    Raises:
        ValueError: the mask is empty or of another size.
    """
    if mask.shape != rgb.shape[:2] or not mask.any():
        raise ValueError(f"mask must be bool {rgb.shape[:2]} with at least one pixel, got {mask.shape} with {int(mask.sum())}")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(int(np.ceil(max(bottom - top, right - left) * MARGIN)), 4)
    canvas = np.full((side, side, 3), GROUND, dtype=np.uint8)
    y, x = (side - (bottom - top)) // 2, (side - (right - left)) // 2
    part = canvas[y : y + bottom - top, x : x + right - left]
    inside = mask[top:bottom, left:right]
    part[inside] = rgb[top:bottom, left:right][inside]
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR), dtype=np.uint8)


def normalise_crops(crops: Tensor) -> Tensor:
    """(N, S, S, 3) uint8 -> (N, 3, S, S) float32 around zero: the preprocessing of the embedded CLIPs."""
    return (crops.permute(0, 3, 1, 2).float() - 127.5) / 64.0


def build(config: Path) -> torch.nn.Module:
    """A randomly initialised open_clip model of a configuration file (training starts from it)."""
    prepare_torchvision()
    import open_clip

    open_clip.add_model_config(config)
    return open_clip.create_model(config.stem, pretrained=None, precision="fp32", load_weights=False)


class RegionTextModel(Protocol):
    """What compares regions of images with phrases."""

    name: str

    def embed_regions(self, rgb: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]]) -> Tensor:
        """(R, D) of R regions, masks (H, W) bool, of one (H, W, 3) image."""
        ...

    def logits(self, regions: Tensor, phrases: Sequence[str]) -> Tensor:
        """(R, K) log-odds that phrase k describes region r, from `embed_regions`."""
        ...


class Clip:
    """An embedded CLIP: image regions and phrases -> unit vectors; `logits` compares them as its sigmoid head was trained to.

    Args:
        config: open_clip model configuration (.json); the model's name is the file's stem.
        weights: .safetensors.

    Raises:
        ModelUnavailable: files missing, corrupt, or not fitting each other.
    """

    def __init__(self, config: Path, weights: Path) -> None:
        prepare_torchvision()
        import open_clip

        load_safetensors(weights)  # refuses other formats and damaged files with a clear word
        if not config.is_file():
            raise ModelUnavailable(f"'{config}' does not exist; remedy: reinstall pcm_ros")
        open_clip.add_model_config(config)
        try:
            model, _, _ = open_clip.create_model_and_transforms(config.stem, pretrained=str(weights), precision="fp32")
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelUnavailable(f"'{weights}' does not fit '{config}': {str(error).splitlines()[0]}") from error
        self.name = config.stem
        self.image_size = int(open_clip.get_model_config(config.stem)["vision_cfg"]["image_size"])
        self._model = model.eval()
        self._tokenizer = open_clip.get_tokenizer(config.stem)
        self._texts: dict[str, Tensor] = {}

    @torch.inference_mode()
    def embed_regions(self, rgb: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]]) -> Tensor:
        """(R, D) unit vectors of R regions of one (H, W, 3) uint8 image."""
        crops = np.stack([region_crop(rgb, mask, self.image_size) for mask in masks])
        return self.embed_crops(crops)

    @torch.inference_mode()
    def embed_crops(self, crops: npt.NDArray[np.uint8]) -> Tensor:
        """(N, D) unit vectors of (N, S, S, 3) uint8 crops."""
        return torch.as_tensor(self._model.encode_image(normalise_crops(torch.from_numpy(crops)), normalize=True))

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """(N, D) unit vectors of (N, 3, S, S) float32 of 0..255; gradients flow where they are enabled."""
        return torch.as_tensor(self._model.encode_image((pictures - 127.5) / 64.0, normalize=True))

    def compare(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """(N, K) log-odds of unit vectors of pictures (N, D) and texts (K, D); gradients flow where they are enabled."""
        return pictures @ texts.T * self._model.logit_scale.detach().exp() + self._model.logit_bias.detach()

    @torch.inference_mode()
    def embed_texts(self, phrases: Sequence[str]) -> Tensor:
        """(K, D) unit vectors; cached."""
        for phrase in phrases:
            if phrase not in self._texts:
                self._texts[phrase] = self._model.encode_text(self._tokenizer([phrase]), normalize=True)[0]
        return torch.stack([self._texts[phrase] for phrase in phrases])

    @torch.inference_mode()
    def logits(self, regions: Tensor, phrases: Sequence[str]) -> Tensor:
        """(R, K): sigmoid of them is the probability that the phrase describes the region."""
        return regions @ self.embed_texts(phrases).T * self._model.logit_scale.exp() + self._model.logit_bias
