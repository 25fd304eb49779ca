"""Text-conditioned segmentation: image + phrases -> mask logits (the interface of CLIPSeg, Lüddecke & Ecker, CVPR 2022).

The embedded model is a residual U-Net whose pixel embeddings are compared with projected MiniLM sentence embeddings by a scaled cosine, so
that any number of phrases costs one pass over the image. It also tells objects from background (objectness) and, for each pixel, the
way to the centre of its object in metres (votes), which splits touching objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pcm_ros.models.loading import ModelUnavailable, fast_precision, load_safetensors
from pcm_ros.models.sentence import DIMENSIONS, SentenceEncoder, sentence_encoder

STRIDE = 4
VOTE_SCALE = 0.05  # metres: votes are learnt in units of this length


def _convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


@dataclass(frozen=True)
class PixelOutput:
    """What the network says of each pixel at stride 4: embedding (B, D, h, w) of unit length, objectness logit (B, 1, h, w), vote
    (B, 3, h, w) from the pixel's surface point to its object's centre, metres, optical frame."""

    embedding: Tensor
    objectness: Tensor
    vote: Tensor


class SegmentationNetwork(nn.Module):
    """About 2 M parameters, 2 GFLOP for a 320x240 image; dense 3x3 convolutions only (depthwise ones are slow on CPUs)."""

    def __init__(self, widths: Sequence[int] = (24, 40, 80, 128, 192), dimensions: int = 64) -> None:
        super().__init__()
        w0, w1, w2, w3, w4 = widths
        self.stem = nn.Sequential(_convolution(3, w0, 2), _convolution(w0, w1, 2), _Residual(w1))
        self.down8 = nn.Sequential(_convolution(w1, w2, 2), _Residual(w2), _Residual(w2))
        self.down16 = nn.Sequential(_convolution(w2, w3, 2), _Residual(w3), _Residual(w3))
        self.down32 = nn.Sequential(_convolution(w3, w4, 2), _Residual(w4), _Residual(w4))
        self.lateral32, self.lateral16 = _convolution(w4, 80, kernel=1), _convolution(w3, 80, kernel=1)
        self.lateral8, self.lateral4 = _convolution(w2, 64, kernel=1), _convolution(w1, 64, kernel=1)
        self.smooth16, self.smooth8, self.smooth4 = _convolution(80, 64), _convolution(64, 64), _convolution(64, 64)
        self.head = nn.Conv2d(64, dimensions + 4, 1)
        self.text = nn.Sequential(nn.Linear(DIMENSIONS, 256), nn.GELU(), nn.Linear(256, dimensions))
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def forward(self, image: Tensor) -> PixelOutput:
        """image: (B, 3, H, W) normalised rgb, H and W multiples of 32."""

        def up(x: Tensor, like: Tensor) -> Tensor:
            return functional.interpolate(x, size=like.shape[-2:], mode="nearest")

        f4 = self.stem(image)
        f8 = self.down8(f4)
        f16 = self.down16(f8)
        f32 = self.down32(f16)
        x = self.smooth16(self.lateral16(f16) + up(self.lateral32(f32), f16))
        x = self.smooth8(self.lateral8(f8) + up(x, f8))
        x = self.smooth4(self.lateral4(f4) + up(x, f4))
        head = self.head(x).float()
        return PixelOutput(functional.normalize(head[:, :-4], dim=1), head[:, -4:-3], head[:, -3:] * VOTE_SCALE)

    def embed_text(self, sentences: Tensor) -> Tensor:
        """(K, 384) sentence vectors -> (K, D) unit vectors."""
        return functional.normalize(self.text(sentences).float(), dim=-1)

    def logits(self, embedding: Tensor, text: Tensor) -> Tensor:
        """Pixel embeddings (B, D, h, w) and texts (K, D) -> mask logits (B, K, h, w)."""
        return torch.einsum("bdhw,kd->bkhw", embedding, text) * self.log_scale.exp() + self.bias


def normalise_image(rgb: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 around zero."""
    return (rgb.permute(0, 3, 1, 2).float() - 127.5) / 64.0


def _fold(module: nn.Module) -> nn.Module:
    """The same network with each normalisation folded into the convolution before it: for use only, it cannot be trained on."""
    for name, child in module.named_children():
        layers = list(child.children())
        if (
            isinstance(child, nn.Sequential)
            and len(layers) > 1
            and isinstance(layers[0], nn.Conv2d)
            and isinstance(layers[1], nn.BatchNorm2d)
        ):
            setattr(module, name, nn.Sequential(fuse_conv_bn_eval(layers[0], layers[1]), *layers[2:]))
        else:
            _fold(child)
    return module


@dataclass(frozen=True)
class ImageFeatures:
    """The network's output for one image, on its stride-4 grid: embedding (D, h, w), objectness (h, w) probability, vote (3, h, w) metres;
    `size` (H, W) of the image in pixels."""

    embedding: Tensor
    objectness: Tensor
    vote: Tensor
    size: tuple[int, int]

    @cached_property
    def cell(self) -> npt.NDArray[np.int64]:
        """(H, W) index of each image pixel's cell in the flattened maps. Read only."""
        h, w = self.objectness.shape
        height, width = self.size
        rows, columns = 2 * np.arange(height) + 1, 2 * np.arange(width) + 1
        return (rows * h // (2 * height) * w)[:, None] + columns * w // (2 * width)

    def shares(self, mask: npt.NDArray[np.bool_]) -> Tensor:
        """(h * w,) float32 share of a mask's (H, W) pixels in each cell of the flattened maps; the mask is not empty."""
        counts = np.bincount(self.cell[mask], minlength=self.objectness.numel())
        return torch.from_numpy((counts / counts.sum()).astype(np.float32))


_TOGETHER = 8  # phrases


class TextSegmenter:
    """The embedded segmenter with its sentence encoder.

    Args:
        weights: .safetensors file; default: the one of the package.
        width: images wider than this are scaled down before the network sees them (it was trained on 320 pixels).
        precision: of the convolutions, float32 or bfloat16; None: what the processor is fast in.

    Raises:
        ModelUnavailable: weights missing, corrupt, or of another network.
    """

    def __init__(
        self, weights: Path, encoder: SentenceEncoder | None = None, width: int = 320, precision: torch.dtype | None = None
    ) -> None:
        self.network = SegmentationNetwork()
        self._precision = precision or fast_precision()
        try:
            self.network.load_state_dict(load_safetensors(weights))
        except RuntimeError as error:
            if isinstance(error, ModelUnavailable):
                raise
            raise ModelUnavailable(f"'{weights}' does not fit the embedded segmenter: {str(error).splitlines()[0]}") from error
        _fold(self.network.eval()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._encoder = encoder
        self._width = width
        self._texts: dict[str, Tensor] = {}

    @torch.inference_mode()
    def features(self, rgb: npt.NDArray[np.uint8]) -> ImageFeatures:
        """Features of an (H, W, 3) uint8 image, independent of any phrase: compute once an image, compare with many phrases."""
        size = rgb.shape[:2]
        image = normalise_image(torch.from_numpy(np.ascontiguousarray(rgb))[None])
        scale = min(1.0, self._width / size[1])
        target = [max(32, round(n * scale / 32) * 32) for n in size]
        if target != list(size):
            image = functional.interpolate(image, size=target, mode="bilinear", antialias=scale < 1, align_corners=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._precision == torch.bfloat16):
            out = self.network(image.contiguous(memory_format=torch.channels_last))
        return ImageFeatures(out.embedding[0], out.objectness[0, 0].sigmoid(), out.vote[0], (size[0], size[1]))

    @torch.inference_mode()
    def embed(self, phrases: Sequence[str]) -> Tensor:
        """(K, D) unit text vectors; cached."""
        for phrase in phrases:
            if phrase not in self._texts:
                encoder = self._encoder or sentence_encoder()
                self._texts[phrase] = self.network.embed_text(encoder.encode([phrase]))[0]
        return torch.stack([self._texts[phrase] for phrase in phrases])

    @torch.inference_mode()
    def logits(self, features: ImageFeatures, phrases: Sequence[str]) -> Tensor:
        """Mask logits (K, h, w) at stride 4; sigmoid of them is the probability that the pixel belongs to what the phrase says.

        Phrases are compared eight at a time, however many there are: kernels for other sizes add up in another order, and a phrase has to
        mean the same to the last bit in any company.
        """
        texts = functional.pad(self.embed(phrases), (0, 0, 0, -len(phrases) % _TOGETHER))
        found = [self.network.logits(features.embedding[None], part)[0] for part in texts.split(_TOGETHER)]
        return torch.cat(found)[: len(phrases)]

    @torch.inference_mode()
    def segment(self, rgb: npt.NDArray[np.uint8], phrases: Sequence[str]) -> Tensor:
        """Mask logits (K, H, W) of K phrases in an (H, W, 3) uint8 image."""
        features = self.features(rgb)
        return functional.interpolate(self.logits(features, phrases)[None], size=features.size, mode="bilinear", align_corners=False)[0]
