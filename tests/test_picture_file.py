"""Pictures of goals as files: the same bits come back, and what is no picture is refused with a reason."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcm_ros.picture_file import ARRAYS, PictureFileError, correspondence_of, load_picture, save_picture
from pcm_ros.tasks.manipulation.workcell import View


def make_view(seed: int = 0, height: int = 5, width: int = 7) -> View:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.3, 2, (height, width)).astype(np.float32)
    depth[0, 0] = np.nan
    turn = rng.normal(size=4)
    intrinsics = np.array([[50.0, 0.1, 3.0], [0.0, 51.0, 2.0], [0.0, 0.0, 1.0]])
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return View("front", rgb, depth, intrinsics, rng.normal(size=3), turn / np.linalg.norm(turn), 5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(2, 9))
def test_the_same_bits_come_back(tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int) -> None:
    path, view = tmp_path_factory.mktemp("picture") / "a" / "goal", make_view(seed, height, width)
    save_picture(path, view)
    back = load_picture(path)
    for name in ARRAYS:
        assert getattr(back, name).dtype == getattr(view, name).dtype
        np.testing.assert_array_equal(getattr(back, name), getattr(view, name))


def write(path: Path, **changed: object) -> Path:
    arrays = {name: getattr(make_view(), name) for name in ARRAYS} | changed
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"orientation": None, "depth": None}, "lacks depth, orientation; it must be a .npz with the arrays rgb"),
        ({"rgb": np.zeros((5, 7), np.uint8)}, "rgb is uint8\\(5, 7\\)"),
        ({"rgb": np.zeros((5, 7, 3), np.float32)}, "rgb is float32; it must be uint8"),
        ({"depth": np.ones((5, 6), np.float32)}, "depth is float32\\(5, 6\\)"),
        ({"depth": np.full((5, 7), np.nan, np.float32)}, "no return at all"),
        ({"depth": np.array([["a"] * 7] * 5)}, "depth is <U1; it must be float32"),
        ({"intrinsics": np.full((3, 3), np.nan)}, "intrinsics must be a finite"),
        ({"position": np.zeros(2)}, "position must be 3 finite metres"),
        ({"orientation": np.zeros(4)}, "length"),
        ({"position": np.array([{"x": 1}, None, None], dtype=object)}, "without pickled objects"),
    ],
)
def test_arrays_that_make_no_picture_are_named(tmp_path: Path, changed: dict[str, object], text: str) -> None:
    with pytest.raises(PictureFileError, match=text):
        load_picture(write(tmp_path / "goal.npz", **changed))


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "goal.npz"
    with pytest.raises(PictureFileError, match="does not exist; `pcm picture"):
        load_picture(path)
    with pytest.raises(PictureFileError, match="cannot be read"):
        load_picture(tmp_path)
    for content in (b"", b"not a picture", pickle.dumps({"rgb": 1})):
        path.write_bytes(content)
        with pytest.raises(PictureFileError, match="cannot be read"):
            load_picture(path)
    whole = write(tmp_path / "whole.npz").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PictureFileError, match="cannot be read"):
        load_picture(path)


class Explosive:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(PictureFileError):
        load_picture(write(tmp_path / "goal.npz", position=np.array([Explosive(mark)] * 3, dtype=object)))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Explosive(mark)))
    with pytest.raises(PictureFileError):
        load_picture(tmp_path / "plain.npz")
    assert not mark.exists()


def test_who_is_who() -> None:
    assert correspondence_of([]) == {}
    assert correspondence_of(["red mug=blue mug", " gray can = box = lid "]) == {"red mug": "blue mug", "gray can": "box = lid"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["red mug"], "'red mug' does not say who is who"),
        (["=blue mug"], "does not say"),
        (["red mug="], "does not say"),
        (["a=b", "a=c"], "means both 'b' and 'c'"),
    ],
)
def test_words_that_do_not_say_who_is_who(words: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        correspondence_of(words)
