"""PyPI's torchvision is built for CUDA torch. Beside a CPU-only torch its operators do not load, and importing it fails on the shape
functions of two of them. Declaring those two lets its transforms (all that open_clip and transformers need) import."""

from __future__ import annotations

import functools
import importlib.util
import threading
from pathlib import Path
from typing import Any

import torch

_once = threading.Lock()  # functools.cache lets two threads in at once, and the operators can be declared once only


def prepare_torchvision() -> Any:
    """Call before anything imports torchvision. Does nothing where torch has CUDA, torchvision is absent, or its operators load."""
    with _once:
        return _prepared()


@functools.cache
def _prepared() -> Any:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or torch.version.cuda is not None:
        return None
    try:
        for library in sorted(Path(spec.origin).parent.glob("_C*.so")):
            torch.ops.load_library(str(library))
    except OSError:
        fragment = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            fragment.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return fragment  # the declarations live as long as this object: functools.cache keeps it
    return None
