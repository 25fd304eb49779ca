"""Scene after scene in one process: what a simulator that runs for days needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("psutil")

# Warm: modules are loaded and allocators have grown. Then as many scenes again must need next to nothing.
SCENES = """
import psutil
from pcm_ros.sim.workcell import SimWorkcell

cell = SimWorkcell("relations-1")
for seed in range(15):
    cell.reset(seed)
before = psutil.Process().memory_info().rss
for seed in range(15, 45):
    cell.reset(seed)
print((psutil.Process().memory_info().rss - before) / 1e6)
"""


def test_thirty_new_scenes_need_no_more_memory() -> None:
    """Each scene with mugs and bowls once left 2 MB behind."""
    done = subprocess.run([sys.executable, "-c", SCENES], capture_output=True, text=True, timeout=240, check=True)
    assert float(done.stdout.split()[-1]) < 20
