"""Clips as a few small frames: decoded by PyAV with bounded work, whatever the length and the size of the video."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Policy = Literal["uniform", "change"]
POLICIES: tuple[str, ...] = get_args(Policy)
WIDTH = 320
"""Pixels: what the embedded models were trained on; wider frames are scaled down as they are decoded."""
MOST_FRAMES = 64
LOOKED_AT = 6
"""The policy "change" chooses among so many times more frames than it keeps."""
STEPPED = 600
"""A video of no more frames than this, of ordinary size, is decoded from end to end; of others, the frames around the asked times only."""
LARGE = 2_100_000
"""Pixels of a frame above which decoding is dear."""
MOST_PIXELS = 8192 * 8192
TRIES = 40
"""Frames that are at least decoded after a jump to find the one of the asked time; of large ones the first will do."""
DECODED = 3600
"""Frames that are decoded in all after jumps, so long as there are no more than DECODED / TRIES jumps."""
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,asf,gif,h264,hevc,m4v,ivf,png_pipe,jpeg_pipe,nut"
"""Containers that hold their video themselves. Play lists, which name other files and addresses, are not among them."""


class UnusableClip(ValueError):
    """A clip that cannot be looked at. The message says why, and what can be done."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A few frames of a video.

    Attributes:
        frames: (T, H, W, 3) uint8 rgb, T >= 1, in the order of time.
        times: (T,) float64 seconds from the start, increasing.
        duration: seconds of the whole video; 0 where unknown.
        source: what people call it.
        problem: "" or why it was not read to its end.
    """

    frames: Images
    times: npt.NDArray[np.float64]
    duration: float
    source: str
    problem: str = ""

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[0] < 1 or shape[3] != 3 or min(shape[1:3]) < 8:
            raise UnusableClip(f"frames are {self.frames.dtype} {shape}; allowed: uint8 (T, H, W, 3), T >= 1, H and W >= 8")
        if self.times.shape != shape[:1] or not np.isfinite(self.times).all() or (np.diff(self.times) <= 0).any():
            raise UnusableClip(f"times must be {shape[0]} increasing seconds, got {self.times.tolist()}")

    @property
    def key(self) -> str:
        """A digest of the frames: what models made of them is kept under it."""
        return hashlib.blake2b(
            np.ascontiguousarray(self.frames).data, digest_size=16, person=repr(self.frames.shape).encode()[:16]
        ).hexdigest()


def clip_of(
    images: Sequence[Images] | Images,
    times: Sequence[float] | None = None,
    count: int = 12,
    policy: Policy = "uniform",
    source: str = "images",
) -> Clip:
    """A clip of images that are there already.

    Args:
        images: (H, W, 3) uint8 rgb each, sizes alike. times: seconds, increasing; default: five images a second.
        count: frames that are kept. policy: which of them, see `chosen`.

    Raises:
        UnusableClip: no image, sizes that differ or are below 8 pixels, or times that do not fit.
        ValueError: a count or a policy out of its range.
    """
    check_selection(count, policy)
    if len(images) == 0:
        raise UnusableClip("the clip has no image; allowed: at least one")
    shapes = {np.shape(image) for image in images}
    if len(shapes) != 1:
        raise UnusableClip(f"images have the shapes {sorted(shapes)[:4]}; allowed: all alike, (H, W, 3)")
    (shape,) = shapes
    if (
        len(shape) != 3
        or shape[2] != 3
        or min(shape[:2]) < 8
        or shape[0] * shape[1] > MOST_PIXELS
        or any(np.asarray(image).dtype != np.uint8 for image in images)
    ):
        raise UnusableClip(f"images are {shape} {np.asarray(images[0]).dtype}; allowed: (H, W, 3) uint8, 8 x 8 to 8192 x 8192")
    when = np.arange(len(images)) / 5.0 if times is None else np.asarray(times, dtype=np.float64)
    if when.shape != (len(images),) or not np.isfinite(when).all() or (np.diff(when) <= 0).any():
        raise UnusableClip(f"times must be {len(images)} increasing seconds")
    looked = _spread(len(images), count * LOOKED_AT if policy == "change" else count)
    small = np.stack([_small(np.asarray(images[i])) for i in looked])
    keep = chosen(small, count, policy)
    return Clip(small[keep], (when - when[0])[looked][keep], float(when[-1] - when[0]), source)


def chosen(frames: Images, count: int, policy: Policy) -> npt.NDArray[np.int64]:
    """Which of (T, H, W, 3) frames to keep, at most `count`, increasing.

    "uniform": evenly in time, the first and the last among them. "change": evenly in change: where more pixels differ from one frame to
    the next, more frames are taken. A quarter of the way is time all the same, so that a still part is not passed over.
    """
    if len(frames) <= count:
        return np.arange(len(frames))
    if policy == "uniform":
        return _spread(len(frames), count)
    tiny = np.stack([cv2.resize(frame, (40, 30), interpolation=cv2.INTER_AREA) for frame in frames]).astype(np.float32)
    change = np.abs(np.diff(tiny, axis=0)).mean(axis=(1, 2, 3))
    share = 0.75 * change / max(float(change.sum()), 1e-9) + 0.25 / len(change)
    way = np.concatenate([[0.0], np.cumsum(share)]) / share.sum()
    return np.unique(np.abs(way[None] - np.linspace(0, 1, count)[:, None]).argmin(axis=1))


def read_clip(path: Path | str, count: int = 12, policy: Policy = "uniform", width: int = WIDTH, deadline: float | None = None) -> Clip:
    """A few frames of a video file.

    Short videos of ordinary size are decoded from end to end, each frame scaled down at once and only wanted ones kept. In long or large
    ones the asked times are jumped to, or decoding goes on to them: `DECODED` frames in all, or `TRIES` for each time where that is more;
    one for each of large pictures. So neither two hours nor 8K pictures take more than a bounded time, and memory holds one full-size
    frame and the few small ones. Pictures are turned as the file says (phones film sideways). What was not seen is said in `problem`.

    Args:
        count: frames, 1..64; fewer if the video has fewer. policy: see `chosen`. width: pixels, wider frames are scaled down.
        deadline: time.monotonic() at which reading ends with what there is.

    Raises:
        UnusableClip: no such file, empty, not a video, a play list, no frame that can be decoded, or no decoder for its codec.
        ValueError: an argument out of its range.
    """
    import av

    check_selection(count, policy)
    if not 32 <= width <= 4096:
        raise ValueError(f"width is {width}; allowed: 32..4096")
    path = Path(path)
    if not path.is_file():
        raise UnusableClip(f"'{path}' is no file; remedy: give the path of a video file")
    if path.stat().st_size == 0:
        raise UnusableClip(f"'{path}' is empty; remedy: a whole video file")
    wanted = min(count * LOOKED_AT, 4 * MOST_FRAMES) if policy == "change" else count
    # a file object, not a name: a name could be an address or a chain of protocols to the library
    with path.open("rb") as file:
        try:
            with av.open(file, options={"format_whitelist": FORMATS}, metadata_errors="ignore") as container:
                frames, times, duration, problem = _decoded(container, path, wanted, width, deadline)
        except av.error.FFmpegError as error:
            raise UnusableClip(
                f"'{path}' cannot be read as a video ({error.strerror or error}); remedy: a whole mp4, mkv, webm or avi file"
            ) from error
    keep = chosen(frames, count, policy)
    return Clip(frames[keep], times[keep], duration, path.name, problem)


def check_selection(count: int, policy: str) -> None:
    """Raises ValueError: a number of frames or a policy out of its range."""
    if not 1 <= count <= MOST_FRAMES:
        raise ValueError(f"count is {count}; allowed: 1..{MOST_FRAMES} frames")
    if policy not in POLICIES:
        raise ValueError(f"policy is '{policy}'; allowed: {', '.join(POLICIES)}")


def _spread(length: int, count: int) -> npt.NDArray[np.int64]:
    """At most `count` indices of 0..length - 1, evenly, both ends among them; the middle for a count of one."""
    if count == 1:
        return np.array([length // 2])
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(np.int64))


def _small(image: Images, width: int = WIDTH) -> Images:
    size = _size(image.shape[1], image.shape[0], width)
    if size == (image.shape[1], image.shape[0]):
        return np.ascontiguousarray(image)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _size(wide: int, high: int, width: int) -> tuple[int, int]:
    """Width and height, even, at most `width` by three times that."""
    scale = min(1.0, width / wide, 3 * width / high)
    return (max(8, round(wide * scale / 2) * 2), max(8, round(high * scale / 2) * 2)) if scale < 1 else (wide, high)


def _decoded(
    container: Any, path: Path, wanted: int, width: int, deadline: float | None
) -> tuple[Images, npt.NDArray[np.float64], float, str]:
    """(T, H, W, 3) small frames, their seconds, the video's duration, and why it was not read to its end."""
    import av

    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams}) or ["none"]
        raise UnusableClip(f"'{path}' has no video (streams: {', '.join(kinds)}); remedy: a file with pictures that move")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise UnusableClip(f"'{path}': no decoder for its codec is there; remedy: convert it, for example to H.264 in mp4")
    if context.width * context.height > MOST_PIXELS:
        raise UnusableClip(f"'{path}' has pictures of {context.width} x {context.height}; allowed: at most 8192 x 8192 pixels")
    large = context.width * context.height > LARGE
    context.thread_count = 1  # more threads keep more full-size frames
    duration = _duration(container, stream)
    known = stream.frames or (duration * float(stream.average_rate) if duration and stream.average_rate else 0)
    found: dict[float, Images] = {}
    problem = ""

    def keep(frame: Any, seconds: float) -> None:
        if seconds not in found:
            found[seconds] = _upright(frame, width)

    def late() -> bool:
        return deadline is not None and time.monotonic() >= deadline and bool(found)

    try:
        if (large and not 0 < known <= 2 * wanted) or known > STEPPED:
            problem = _jump(container, stream, wanted, duration, large, keep, late)
        else:
            problem = _step(container, stream, wanted, known, large, keep, late)
    except av.error.FFmpegError as error:
        if not found:
            raise
        problem = f"it could not be read to its end ({error.strerror or error})"
    if not found:
        raise UnusableClip(f"'{path}' holds no picture that can be decoded; remedy: a whole video file")
    order = sorted(found)
    shape = found[order[0]].shape
    frames = [found[t] if found[t].shape == shape else np.asarray(cv2.resize(found[t], (shape[1], shape[0])), np.uint8) for t in order]
    times = np.array(order) - order[0]
    whole = duration - 2.5 / float(stream.average_rate or 1) if duration else 0.0
    if not problem and times[-1] < 0.97 * whole and not known > STEPPED and not large:
        problem = f"it ends after {times[-1]:.1f} s though it says that it lasts {duration:.1f} s: it may be cut off"
    keep_rows = _spread(len(frames), wanted)
    return np.stack(frames)[keep_rows], times[keep_rows], max(duration, float(times[-1])), problem


def _upright(frame: Any, width: int) -> Images:
    """A decoded frame as a small image, turned by the quarters that its display matrix says, counterclockwise."""
    quarters = round(frame.rotation / 90) % 4
    if quarters % 2:
        high, wide = _size(frame.height, frame.width, width)
    else:
        wide, high = _size(frame.width, frame.height, width)
    image = frame.to_ndarray(format="rgb24", width=wide, height=high)
    if quarters % 2:
        wide, high = high, wide
    return np.ascontiguousarray(np.rot90(image, quarters))


def _duration(container: Any, stream: Any) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return float(container.duration / 1e6) if container.duration else 0.0


def _step(container: Any, stream: Any, wanted: int, known: float, large: bool, keep: Any, late: Any) -> str:
    """Decode from end to end. Where the number of frames is unknown, ever fewer are kept as more come; the end is STEPPED * 4."""
    every, last = max(1, math.floor(known / (2 * wanted))) if known else 1, None
    most = 2 * wanted if large else 4 * STEPPED
    for number, frame in enumerate(container.decode(stream)):
        seconds = frame.time if frame.time is not None else number / 25.0
        last = (frame, seconds)
        if number % every == 0:
            keep(frame, seconds)
        if number >= 8 * wanted * every and not known:
            every *= 2
        if late():
            return "the deadline came before its end"
        if number + 1 >= most:
            return f"its length is unknown: only its first {number + 1} frames were read"
    if last is not None:
        keep(*last)
    return ""


def _entered(container: Any, stream: Any, start: float, goal: float, slack: float) -> tuple[Any, Any]:
    """Frames from the nearest point of entry before a time, and the first of them; None: there is none. Containers without an index may
    find a point up to which nothing can be decoded till long after that time: then from one some seconds before."""
    frames, frame = None, None
    for back in (0.0, 4.0, 16.0, 64.0):
        container.seek(int(max(start, goal - back) / stream.time_base), stream=stream, backward=True, any_frame=False)
        frames = container.decode(stream)
        frame = next(frames, None)
        if goal - back <= start or (frame is not None and (frame.time is None or frame.time <= goal + slack)):
            break
    return frames, frame


def _jump(container: Any, stream: Any, wanted: int, duration: float, large: bool, keep: Any, late: Any) -> str:
    """Jump to evenly spread times, or decode on to the next one where a jump would only lead back. Of large pictures whatever stands at
    the nearest point of entry is taken."""
    import av

    if not duration:
        stream.codec_context.skip_frame = "NONKEY"
        return _step(container, stream, wanted, 0, True, keep, late)
    start = float((stream.start_time or 0) * stream.time_base)
    rate = float(stream.average_rate or 25)
    targets = np.linspace(0, max(duration - 0.5, duration * 0.98), wanted).tolist() if wanted > 1 else [duration / 2]
    spacing = max(targets[1] - targets[0] if wanted > 1 else duration / 2, 1 / rate)
    unread = missed = done = 0
    frames: Any = None
    here = entry = -math.inf  # the times of the frame that was decoded last, and of the last point of entry up to it
    for number, target in enumerate(targets):
        goal, nearest = start + target, None
        most = 1 if large else max(TRIES, (DECODED - done) // (wanted - number))
        try:
            # Points of entry are at least so far apart as decoding has come from the last one: a jump could lead back to it.
            if frames is None or large or goal - here > max(here - entry, TRIES / rate):
                frames, frame = _entered(container, stream, start, goal, spacing / 2)
                here, entry = -math.inf, -math.inf
            else:
                frame = next(frames, None) if here < goal - 1e-6 else None
            for tried in range(most):
                if here >= goal - 1e-6 or (tried and late()):
                    break
                frame = next(frames, None) if tried else frame
                if frame is None:
                    frames = None
                    break
                nearest, done = frame, done + 1
                if frame.time is None:
                    frames = None
                    break
                here = float(frame.time)
                if frame.key_frame or entry == -math.inf:
                    entry = here
            if nearest is not None:
                keep(nearest, goal if nearest.time is None else float(nearest.time))
            missed += abs(here - goal) > spacing and not (nearest is not None and nearest.time is None)
        except av.error.FFmpegError:
            unread, frames = unread + 1, None  # a damaged part: the other times may do
        if late():
            return "the deadline came before its end"
    if unread:
        return f"{unread} of {wanted} times in it could not be read"
    return f"{missed} of {wanted} times in it were missed by more than {spacing:.1f} s: it has too few points of entry" if missed else ""
