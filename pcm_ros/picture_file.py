"""Pictures of goals as files: one NumPy archive (.npz) with plain arrays, which anybody can write with `numpy.savez_compressed`.

| array | shape, type | meaning |
|---|---|---|
| rgb | (H, W, 3) uint8 | colour |
| depth | (H, W) float32 | metres along the optical axis; 0, NaN and inf: no return |
| intrinsics | (3, 3) float64 | pinhole matrix, of a rectified image |
| position | (3,) float64 | of the optical frame (x right, y down, z forward; REP-103) in the frame of the workcell, metres |
| orientation | (4,) float64 | unit quaternion x, y, z, w of the same |
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pcm_ros.tasks.manipulation.workcell import InvalidObservation, View

ARRAYS = {"rgb": np.uint8, "depth": np.float32, "intrinsics": np.float64, "position": np.float64, "orientation": np.float64}
MOST_BYTES = 400_000_000  # unpacked; a picture of 20 megapixels has 140 million


class PictureFileError(ValueError):
    """A file that holds no picture of a goal. The message names the file, what is wrong with it, and the remedy."""


def save_picture(path: Path, view: View) -> None:
    """Write a picture; folders are made. The same view gives the same arrays back, bit for bit. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: np.asarray(getattr(view, name), dtype=kind) for name, kind in ARRAYS.items()}
    with path.open("wb") as file:  # numpy would add a suffix to a name
        np.savez_compressed(file, **arrays)


def load_picture(path: Path) -> View:
    """Read a picture. Nothing in the file is executed: pickled objects are refused.

    Raises:
        PictureFileError: no such file, no archive, arrays missing or of another kind, or no depth.
    """
    remedy = f"it must be a .npz with the arrays {', '.join(ARRAYS)}; `pcm picture` writes one"
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > MOST_BYTES:
            raise PictureFileError(f"picture '{path}' unpacks to {size} bytes; at most {MOST_BYTES} are read")
        with np.load(path, allow_pickle=False) as content:
            if missing := [name for name in ARRAYS if name not in content.files]:
                raise PictureFileError(f"picture '{path}' lacks {', '.join(missing)}; {remedy}")
            arrays: dict[str, Any] = {name: content[name] for name in ARRAYS}
    except FileNotFoundError as error:
        raise PictureFileError(f"picture '{path}' does not exist; `pcm picture --out FILE` makes one from the simulator") from error
    except PictureFileError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError) as error:
        raise PictureFileError(f"picture '{path}' cannot be read ({error}); {remedy}, without pickled objects") from error
    for name, kind in ARRAYS.items():
        if not np.can_cast(arrays[name].dtype, kind, "same_kind") or (name == "rgb" and arrays[name].dtype != kind):
            raise PictureFileError(f"picture '{path}': {name} is {arrays[name].dtype}; it must be {np.dtype(kind)}")
        arrays[name] = np.ascontiguousarray(arrays[name], dtype=kind)
    try:
        view = View("goal picture", **arrays)
    except InvalidObservation as error:
        raise PictureFileError(f"picture '{path}': {error}") from error
    if not view.valid_depth.any():
        raise PictureFileError(f"picture '{path}': depth has no return at all (0, NaN or inf everywhere); metres are needed")
    return view


def correspondence_of(words: Sequence[str]) -> dict[str, str]:
    """["red mug=blue mug", ...] as name in the picture -> name in the present scene. Raises ValueError for another form."""
    found: dict[str, str] = {}
    for word in words:
        pictured, sign, present = (part.strip() for part in word.partition("="))
        if not sign or not pictured or not present:
            raise ValueError(f"'{word}' does not say who is who; it must read 'name in the picture=name here', as in 'red mug=blue mug'")
        if pictured in found:
            raise ValueError(f"'{pictured}' in the picture means both '{found[pictured]}' and '{present}'; it can take one part only")
        found[pictured] = present
    return found
