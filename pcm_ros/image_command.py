"""What `pcm image` does and shows."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import cv2
from rich.console import Console

from pcm_ros.console import INTERRUPTED, stop_on_signals
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.tasks.image_generation import Picture, Progress, Request, painter
from pcm_ros.tasks.image_generation.assembly import Method

FORMATS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LONGEST = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}
"""Pixels of a side that a format can hold; others hold more than is ever painted."""


@dataclasses.dataclass(frozen=True)
class Options:
    """As on the command line. experts: names; empty = those of the method. scale: side of a drawn pixel in the file. every: write the
    pictures that were not chosen too."""

    method: Method = "consensus"
    model: Path | None = None
    scheduler: str = "ddim"
    experts: tuple[str, ...] = ()
    deadline: float | None = None
    preview: Path | None = None
    scale: int = 1
    every: bool = False


class ImageError(ValueError):
    """The command can't do it. The message says why, and the remedy."""


def paint_and_show(request: Request, out: Path, options: Options, as_json: bool = False) -> int:
    """Paint, write the picture (and while it works the previews), and print what the experts said.

    Returns:
        Exit code: 0 with a finished picture, 1 with one that the deadline cut off, 130 when interrupted.

    Raises:
        ImageError: an option out of its range, a file that can't be written, or a model that can't be loaded.
    """
    shown = Console(stderr=True, emoji=False)
    for path in (out, options.preview):
        if path is not None and path.suffix.lower() not in FORMATS:
            raise ImageError(f"'{_said(path)}' is no picture file; allowed: names that end in {', '.join(FORMATS)}")
        if path is not None:
            _check_writable(path)
    try:
        with shown.status("loading models"):
            painting = painter(options.method, options.model, options.scheduler, options.experts or None)
            _check_size(request, painting.model.size, out, options)
            painting.prepare()
        with stop_on_signals() as asked, shown.status("painting") as status:

            def tell(progress: Progress) -> None:
                status.update(f"step {progress.round} of {progress.rounds}, {progress.seconds:.1f} s")
                if options.preview is not None:
                    _write(options.preview, progress.preview, options.scale)

            started = time.monotonic()
            picture = painting.paint(request, options.deadline, asked.is_set, tell)
    except KeyboardInterrupt:  # while models were loading
        shown.print("interrupted")
        return INTERRUPTED
    except (ModelUnavailable, ValueError) as error:
        raise ImageError(str(error)) from error
    _write(out, picture.image, options.scale)
    for number, other in enumerate(picture.others if options.every else (), start=2):
        _write(out.with_stem(f"{out.stem}-{number}"), other, options.scale)
    _show(picture, out, time.monotonic() - started, as_json)
    return INTERRUPTED if picture.reason == "cancelled" else 0 if picture.complete else 1


def _check_writable(path: Path) -> None:
    """Before minutes are spent on what goes there. Raises ImageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        what = "it is a folder" if path.is_dir() else "" if os.access(path if path.exists() else path.parent, os.W_OK) else "no permission"
    except OSError as error:  # a name may also be too long
        raise ImageError(f"'{_said(path)}' cannot be written: {error.strerror}; remedy: another --out or --preview") from error
    if what:
        raise ImageError(f"'{_said(path)}' cannot be written: {what}; remedy: another --out or --preview")


def _check_size(request: Request, own: int, out: Path, options: Options) -> None:
    """Whether the formats can hold a picture of this size. own: side of the model's own size, pixels. Raises ImageError."""
    side = options.scale * max(request.height or own, request.width or own)
    for path in (out, options.preview):
        if path is not None and side > (most := LONGEST.get(path.suffix.lower(), side)):
            raise ImageError(
                f"'{_said(path)}' would have a side of {side} pixels; allowed: up to {most} in {path.suffix}; "
                "remedy: a lower --scale, or .png"
            )


def _said(path: Path) -> str:
    """A path that can be shown: bytes that are no UTF-8 as \\xNN."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _write(path: Path, rgb: object, scale: int) -> None:
    """Not by cv2.imwrite: that ends the process where a path is no UTF-8. Raises ImageError."""
    large = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)  # type: ignore[call-overload]
    try:
        made, content = cv2.imencode(path.suffix.lower(), large[..., ::-1])
        if not made:
            raise ImageError(f"'{_said(path)}' cannot be written: no {path.suffix} of {large.shape[1]} x {large.shape[0]} pixels")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.tobytes())
    except (OSError, cv2.error) as error:
        raise ImageError(f"'{_said(path)}' cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _show(picture: Picture, out: Path, seconds: float, as_json: bool) -> None:
    console = Console(emoji=False, highlight=False)
    report = {
        "file": str(out),
        "seconds": round(seconds, 2),
        "complete": picture.complete,
        "reason": picture.reason,
        "energies": picture.energies,
        "energies_of_others": picture.energies_of_others,
        "expert_seconds": picture.expert_seconds,
        "dropped": {name: {"rounds": rounds, "why": why} for name, (rounds, why) in picture.dropped.items()},
    }
    if as_json:
        print(json.dumps({**report, "history": picture.history}, indent=1, default=dict))
        return
    size = f"{picture.image.shape[1]} x {picture.image.shape[0]}"
    console.print(f"{_said(out)}: {size}, {seconds:.1f} s", markup=False, soft_wrap=True)
    for name, energy in picture.energies.items():
        others = [f"{other[name]:.2f}" for other in picture.energies_of_others if name in other]
        told = f", of the others {' '.join(others)}" if others else ""
        if name in picture.expert_seconds:
            told += f", {picture.expert_seconds[name]:.3f} s a step"
        console.print(f"  {name}: energy {energy:.3f}{told}", soft_wrap=True)
    for name, (rounds, why) in picture.dropped.items():
        console.print(f"  left out of {rounds} steps: {name} ({why})", markup=False, soft_wrap=True)
    if not picture.complete:
        console.print(f"  not finished: {picture.reason}")
