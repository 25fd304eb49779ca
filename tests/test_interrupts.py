"""Ctrl-C ends a command wherever it comes."""

from __future__ import annotations

import subprocess
import sys

LOST = """
import os, signal
from pcm_ros.console import remember_interrupts, stop_on_signals
remember_interrupts()
class Tidies:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
Tidies().__str__()
with stop_on_signals() as asked:
    print("asked" if asked.is_set() else "lost")
"""
TURNED = """
import os, signal, sys
from pcm_ros import cli
def app():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
    except KeyboardInterrupt:
        raise {error}
cli.app = app
cli.main()
"""


MANY = """
import subprocess, sys
from pcm_ros.console import stop_on_signals
ask = "import os\\nfor _ in range(100000): os.kill(os.getppid(), 15)"
with stop_on_signals() as asked:
    asking = subprocess.Popen([sys.executable, "-c", ask])
    while asking.poll() is None:
        asked.wait(0.001)
    print("asked" if asked.wait(0) else "lost")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)


def test_signals_that_meet_each_other_do_not_wait_for_each_other() -> None:
    """A second signal comes while the first one's handler is at work."""
    done = run(MANY)
    assert (done.returncode, done.stdout.strip()) == (0, "asked"), done.stderr


def test_an_interrupt_that_python_ignored_is_remembered() -> None:
    found = run(LOST)
    assert "Exception ignored" in found.stderr, "the interrupt was meant to be lost"
    assert found.stdout.strip() == "asked"


def test_an_interrupt_that_became_another_error_is_one_still() -> None:
    for error in ("ImportError('initialization failed')", "SystemExit(1)"):
        assert run(TURNED.replace("{error}", error)).returncode == 130, error
    assert run("from pcm_ros import cli\ndef app(): raise SystemExit(1)\ncli.app = app\ncli.main()").returncode == 1
