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
            raise ImageError(f"'{path}' is no picture file; allowed: names that end in {', '.join(FORMATS)}")
        if path is not None:
            _check_writable(path)
    try:
        with shown.status("loading models"):
            painting = painter(options.method, options.model, options.scheduler, options.experts or None)
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
    except OSError as error:
        raise ImageError(f"'{path}' cannot be written: {error.strerror}; remedy: another --out or --preview") from error
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        what = "it is a folder" if path.is_dir() else "no permission"
        raise ImageError(f"'{path}' cannot be written: {what}; remedy: another --out or --preview")


def _write(path: Path, rgb: object, scale: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    large = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)  # type: ignore[call-overload]
    if not cv2.imwrite(str(path), large[..., ::-1]):
        raise ImageError(f"'{path}' cannot be written")


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
    console.print(f"{out}: {picture.image.shape[1]} x {picture.image.shape[0]}, {seconds:.1f} s", soft_wrap=True)
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
