"""Property tests run the same examples each time and without deadlines: how long one takes says more about what else the machine does.

New examples are looked for with `pytest --hypothesis-profile=explore`. Besides, videos made on the spot.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's background jobs; the processes under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("pcm_ros", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("pcm_ros")

MakeVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> MakeVideo:
    """A video in which a red bar goes from left to right; in its first half it stands still if `late`."""
    import av

    folder = tmp_path_factory.mktemp("videos")

    def make(
        name: str, count: int = 30, width: int = 64, height: int = 48, rate: int = 10, codec: str = "mpeg4", late: bool = False
    ) -> Path:
        path = folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(count):
                share = max(0.0, 2 * number / count - 1) if late else number / count
                picture = np.full((height, width, 3), 60, dtype=np.uint8)
                left = int(share * (width - width // 8))
                picture[:, left : left + width // 8] = (220, 20, 20)
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        return path

    return make
