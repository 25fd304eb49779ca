"""Decoding: what is wanted comes out, what is broken is said, and neither length nor size makes the work unbounded."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from pcm_ros.sight.frames import Clip, UnusableClip, chosen, clip_of, read_clip
from tests.conftest import MakeVideo


def bar(frame: np.ndarray) -> float:
    """Where the red bar is, 0..1 of the width."""
    redness = frame[..., 0].astype(float) - frame[..., 1]
    return float((redness.sum(axis=0) * np.arange(frame.shape[1])).sum() / redness.sum() / frame.shape[1])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_frames_are_spread_over_the_video_from_the_first_to_the_last(make_video: MakeVideo, name: str) -> None:
    clip = read_clip(make_video(name, 30), 5)
    assert clip.frames.shape == (5, 48, 64, 3)
    assert clip.problem == ""
    assert clip.times[0] == 0 and clip.times[-1] == pytest.approx(2.9, abs=0.11)
    places = [bar(frame) for frame in clip.frames]
    assert places == sorted(places) and places[-1] - places[0] > 0.7


def test_one_frame_is_a_clip(make_video: MakeVideo) -> None:
    clip = read_clip(make_video("one.mp4", 1), 12)
    assert clip.frames.shape[0] == 1
    assert clip.times.tolist() == [0.0]


def test_a_single_frame_of_many_is_from_the_middle(make_video: MakeVideo) -> None:
    assert bar(read_clip(make_video("middle.mp4", 31), 1).frames[0]) == pytest.approx(0.5, abs=0.1)


def test_change_based_frames_are_where_something_moves(make_video: MakeVideo) -> None:
    path = make_video("late.mp4", 60, late=True)
    moving = {policy: int((read_clip(path, 8, policy).times > 3.0).sum()) for policy in ("uniform", "change")}
    assert moving["change"] > moving["uniform"]
    assert read_clip(path, 8, "change").times[0] == 0


def test_wide_frames_are_scaled_down(make_video: MakeVideo) -> None:
    assert read_clip(make_video("wide.mp4", 4, 1280, 720), 2).frames.shape[1:] == (180, 320, 3)


def written(path: Path, count: int, gop: int, rotation: int = 0) -> Path:
    """A video of H.264 at 30 pictures a second in which a red bar goes from left to right."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": str(gop), "sc_threshold": "0", "preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            picture = np.full((48, 64, 3), 60, dtype=np.uint8)
            left = int(number / count * 56)
            picture[:, left : left + 8] = (220, 20, 20)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    if rotation:  # the display matrix of the track, as phones write it: what is coded to the right is shown downwards
        content = bytearray(path.read_bytes())
        one = (1 << 16).to_bytes(4, "big")
        plain = one + bytes(12) + one + bytes(12) + (1 << 30).to_bytes(4, "big")
        turned = bytes(4) + one + bytes(4) + b"\xff\xff\x00\x00" + bytes(16) + (1 << 30).to_bytes(4, "big")
        place = content.index(plain, content.index(b"tkhd"))
        content[place : place + len(plain)] = turned
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "count", "gop"), [("a.mp4", 750, 250), ("a.mkv", 750, 250), ("a.ts", 750, 250), ("b.mp4", 1500, 1500)])
def test_few_points_of_entry_leave_nothing_unseen(tmp_path: Path, name: str, count: int, gop: int) -> None:
    clip = read_clip(written(tmp_path / name, count, gop), 12)
    assert clip.problem == ""
    assert len(clip.times) == 12
    assert np.abs(clip.times - np.linspace(0, count / 30 - 0.5, 12)).max() < 0.2
    assert np.allclose([bar(frame) for frame in clip.frames], 1 / 16 + clip.times / (count / 30) * 7 / 8, atol=0.03)


def test_times_that_are_missed_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcm_ros.sight.frames.DECODED", 0)
    clip = read_clip(written(tmp_path / "a.mp4", 900, 900), 4)
    assert "were missed by more than" in clip.problem


@pytest.mark.parametrize("count", [20, 700])
def test_what_a_phone_filmed_sideways_is_turned(tmp_path: Path, count: int) -> None:
    clip = read_clip(written(tmp_path / "a.mp4", count, 30, rotation=90), 2)
    assert clip.frames.shape[1:] == (64, 48, 3) and clip.frames.flags.c_contiguous
    assert clip.frames[0, 2, 20, 0] > 150 > clip.frames[0, 60, 20, 0], "the bar, first at the left, is shown at the top"
    assert read_clip(written(tmp_path / "b.mp4", 20, 30, rotation=90), 2, width=32).frames.shape[1:] == (42, 32, 3)


def test_two_hours_are_jumped_through(make_video: MakeVideo) -> None:
    clip = read_clip(make_video("long.mp4", 7200, 32, 32, rate=1), 6)
    assert len(clip.frames) == 6
    assert clip.duration == pytest.approx(7200, abs=2)
    assert np.diff(clip.times).min() > 1000
    places = [bar(frame) for frame in clip.frames]
    assert places == sorted(places)


def test_pictures_of_8k_are_read_small(make_video: MakeVideo) -> None:
    clip = read_clip(make_video("large.mp4", 2, 7680, 4320), 12)
    assert clip.frames.shape[1:] == (180, 320, 3)


def test_a_deadline_in_the_past_gives_what_there_is(make_video: MakeVideo) -> None:
    clip = read_clip(make_video("late-reader.mp4", 60), 12, deadline=time.monotonic() - 1)
    assert len(clip.frames) >= 1
    assert "deadline" in clip.problem


def test_files_that_are_no_video(tmp_path: Path, make_video: MakeVideo) -> None:
    whole = make_video("whole.mp4").read_bytes()
    files = {"empty.mp4": b"", "text.mp4": b"hello " * 200, "half.mp4": whole[: len(whole) // 2]}
    files |= {"list.m3u8": f"#EXTM3U\n#EXTINF:3,\n{make_video('whole.mp4')}\n#EXT-X-ENDLIST\n".encode()}
    files |= {"chain.txt": f"ffconcat version 1.0\nfile '{make_video('whole.mp4')}'\n".encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnusableClip, match="remedy"):
            read_clip(tmp_path / name)
    for name in ("missing.mp4", "."):
        with pytest.raises(UnusableClip, match="is no file"):
            read_clip(tmp_path / name)
    with pytest.raises(UnusableClip, match="is no file"):
        read_clip("concat:a.mp4|b.mp4")


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes_and_says_so(tmp_path: Path, make_video: MakeVideo) -> None:
    whole = make_video("cut.mkv", 60).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    clip = read_clip(path, 6)
    assert clip.times[-1] < 4.5
    assert clip.problem


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.wav"
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in stream.encode(frame):
            container.mux(packet)
    with pytest.raises(UnusableClip):
        read_clip(path)


def test_a_codec_without_decoder_is_said(tmp_path: Path, make_video: MakeVideo) -> None:
    content = make_video("codec.avi", 4).read_bytes()
    path = tmp_path / "codec.avi"
    path.write_bytes(content.replace(b"FMP4", b"ZZZ9"))
    with pytest.raises(UnusableClip, match=r"codec|cannot be read|no picture"):
        read_clip(path)


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 65}, {"policy": "random"}, {"width": 8}])
def test_options_out_of_range(make_video: MakeVideo, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        read_clip(make_video("options.mp4", 3), **options)  # type: ignore[arg-type]


def test_images_are_a_clip_too() -> None:
    images = [np.full((20, 30, 3), value, dtype=np.uint8) for value in range(40)]
    clip = clip_of(images, count=4)
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 13, 26, 39]
    assert clip.duration == pytest.approx(39 / 5)
    assert clip.key == clip_of(images, count=4).key != clip_of(images[::-1], count=4).key


def test_images_that_do_not_fit() -> None:
    good = np.zeros((20, 30, 3), dtype=np.uint8)
    for images in ([], [good, good[:10]], [good[..., 0]], [good.astype(float)]):
        with pytest.raises(UnusableClip):
            clip_of(images)
    for times in ([0.0], [0.0, 0.0], [1.0, 0.0], [0.0, float("nan")]):
        with pytest.raises(UnusableClip, match="increasing"):
            clip_of([good, good], times)
    with pytest.raises(UnusableClip):
        Clip(good[None][:0], np.zeros(0), 0.0, "none")


def test_choice_keeps_order_and_number() -> None:
    frames = np.random.default_rng(1).integers(0, 255, (50, 16, 16, 3), dtype=np.uint8)
    for policy in ("uniform", "change"):
        rows = chosen(frames, 7, policy)  # type: ignore[arg-type]
        assert 1 <= len(rows) <= 7 and (np.diff(rows) > 0).all()
