"""The vision-language models of manipulation, with what they say of an image computed once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pcm_ros.models.clip import RegionTextModel
from pcm_ros.models.loading import set_threads
from pcm_ros.models.segmentation import ImageFeatures

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# Views are looked at side by side in so many threads, each with one thread of torch's: what is computed does not depend on the number.
SIDE_BY_SIDE = 2


class Segmenter(Protocol):
    """What manipulation needs of a text-conditioned segmenter (pcm_ros.models.segmentation.TextSegmenter is one)."""

    def features(self, rgb: npt.NDArray[np.uint8]) -> ImageFeatures: ...

    def logits(self, features: ImageFeatures, phrases: tuple[str, ...]) -> Tensor: ...


class Newest(Generic[Answer]):
    """Answers that are kept for the newest questions; safe to ask from several threads."""

    def __init__(self, kept: int) -> None:
        self._kept, self._lock = kept, Lock()
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def get(self, key: bytes, make: Callable[[], Answer]) -> Answer:
        with self._lock:
            found = self._answers.get(key)
        if found is None:
            found = make()
            with self._lock:
                self._answers[key] = found
                while len(self._answers) > self._kept:
                    self._answers.popitem(last=False)
        return found


def digest(*arrays: npt.NDArray[Any]) -> bytes:
    """What tells arrays from others."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


class Vision:
    """A segmenter whose features are kept for the newest images: perception and the scorers of one process share them.

    Args:
        segmenter: any Segmenter.
        kept: number of images whose features are kept.
    """

    def __init__(self, segmenter: Segmenter, kept: int = 16) -> None:
        self._segmenter = segmenter
        self._features: Newest[ImageFeatures] = Newest(kept)

    def features(self, rgb: npt.NDArray[np.uint8]) -> ImageFeatures:
        """Features of an (H, W, 3) uint8 image; images are told apart by their content, not by their stamp."""
        return self._features.get(digest(rgb), lambda: self._segmenter.features(rgb))

    def logits(self, rgb: npt.NDArray[np.uint8], phrases: tuple[str, ...]) -> Tensor:
        """Mask logits (K, h, w) on the features' grid."""
        return self._segmenter.logits(self.features(rgb), phrases)


class RegionEmbeddings:
    """What a CLIP makes of the regions of an image, kept for the newest images: naming and grounding look at the same regions.

    Args:
        model: any RegionTextModel.
        kept: number of images whose regions are kept.
    """

    def __init__(self, model: RegionTextModel, kept: int = 32) -> None:
        self._model = model
        self._embeddings: Newest[Tensor] = Newest(kept)

    def of(self, rgb: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]]) -> Tensor:
        """(R, D) of R >= 1 regions, masks (H, W) bool, of one (H, W, 3) uint8 image. Do not write into it."""
        key = digest(rgb, np.packbits(np.stack(masks), axis=-1))
        return self._embeddings.get(key, lambda: self._model.embed_regions(rgb, masks))


class SideBySide:
    """Does the same for several views at a time: models and waiting for other processes release the interpreter, so that two cores are
    worth two.

    Args:
        threads: 1..16.
    """

    def __init__(self, threads: int = SIDE_BY_SIDE) -> None:
        if not 1 <= threads <= 16:
            raise ValueError(f"threads is {threads}; allowed: 1..16")
        self._pool = ThreadPoolExecutor(threads, "views", initializer=set_threads) if threads > 1 else None

    def map(self, do: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """do(item) of each, in order. What one of them raises is raised."""
        return self.begin(do, items)()

    def begin(self, do: Callable[[Item], Answer], items: Sequence[Item]) -> Callable[[], list[Answer]]:
        """Like `map`, but what is returned waits for the answers: other work can be done until then."""
        if self._pool is None:
            return lambda: [do(item) for item in items]
        answers = self._pool.map(do, items)
        return lambda: list(answers)
