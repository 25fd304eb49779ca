"""`pcm doctor`: what is missing on this machine, and the remedy for each."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One check: `problem` is empty where all is well, `remedy` says what to do, `fatal` whether the main job cannot run."""

    name: str
    state: str
    problem: str = ""
    remedy: str = ""
    fatal: bool = True


def examine() -> list[Finding]:
    """All checks; none of them raises."""
    findings = []
    for name, check in CHECKS.items():
        try:
            findings.append(check())
        except Exception as error:  # a check that breaks is itself a finding
            findings.append(Finding(name, "", f"{type(error).__name__}: {error}", "reinstall: pip install ."))
    return findings


def _python() -> Finding:
    version = sys.version.split()[0]
    fits = (3, 11) <= sys.version_info[:2] < (3, 15)
    return Finding("python", version, "" if fits else "Python 3.11 to 3.14 is needed", "make PYTHON=python3.11 demo")


def _interfaces() -> Finding:
    missing = [name for name in ("msg", "srv", "action") if importlib.util.find_spec(f"pcm_ros.{name}") is None]
    if not missing:
        from pcm_ros.msg import View

        View()
    problem = f"pcm_ros.{', pcm_ros.'.join(missing)} not built" if missing else ""
    return Finding("ROS interfaces", "built", problem, "pip install . (or colcon build, and source install/setup.bash)")


def _discovery() -> Finding:
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from std_msgs.msg import String

    from pcm_ros.bringup import environment

    os.environ.update(environment())
    contexts = [Context(), Context()]
    for context in contexts:
        rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        talker, listener = (rclpy.create_node(f"pcm_doctor_{n}", context=context) for n, context in enumerate(contexts))
        got: list[float] = []
        executor = SingleThreadedExecutor(context=contexts[1])
        executor.add_node(listener)
        publisher = talker.create_publisher(String, "pcm_doctor", 1)
        listener.create_subscription(String, "pcm_doctor", lambda _: got.append(time.monotonic()), 1)
        start = time.monotonic()
        while not got and time.monotonic() - start < 5.0:
            publisher.publish(String(data="?"))
            executor.spin_once(timeout_sec=0.05)
        names = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "RMW_IMPLEMENTATION")
        said = ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)
        if got:
            return Finding("DDS discovery", f"{got[0] - start:.2f} s ({said})")
        remedy = "allow loopback multicast (ip link set lo multicast on), or set ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST; see docs/ros.md"
        return Finding("DDS discovery", said, "two participants on this machine did not find each other within 5 s", remedy)
    finally:
        for context in contexts:
            context.try_shutdown()


def _images() -> Finding:
    from pcm_ros.bringup import profiles_variable

    name = profiles_variable()
    profile = os.environ.get(name, "")
    problem = "" if profile and os.path.isfile(profile) else f"{name} is '{profile}', no file"
    return Finding("DDS profile for images", profile, problem, "unset the variable (pcm sets it), or name config/fastdds.xml")


def _shared_memory() -> Finding:
    if not os.path.isdir("/dev/shm"):
        return Finding("shared memory", "", "/dev/shm is not there: images travel by UDP, slower", "mount a tmpfs at /dev/shm", fatal=False)
    free = shutil.disk_usage("/dev/shm").free / 2**20
    problem = "" if free > 256 else f"{free:.0f} MB are free; each process takes 16 MB for images"
    return Finding("shared memory", f"{free:.0f} MB free", problem, "docker run --shm-size=1g, or remove files from /dev/shm", fatal=False)


def _models() -> Finding:
    from pcm_ros.models.registry import registry

    problems = [problem for entry in registry().values() for problem in entry.problems()]
    size = sum(entry.size for entry in registry().values()) / 1e6
    return Finding(
        "model weights",
        f"{len(registry())} models, {size:.0f} MB",
        "; ".join(problems),
        "git checkout -- pcm_ros/models/weights, or reinstall",
    )


def _torch() -> Finding:
    import torch

    from pcm_ros.models.loading import set_threads

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (not needed)"
    return Finding("torch", f"{torch.__version__}, {set_threads()} thread(s) of {os.cpu_count()} cores, GPU: {gpu}")


def _simulator() -> Finding:
    import pybullet

    client = pybullet.connect(pybullet.DIRECT)
    pybullet.disconnect(client)
    return Finding("PyBullet", f"API {pybullet.getAPIVersion()}" if hasattr(pybullet, "getAPIVersion") else "starts")


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "ROS interfaces": _interfaces,
    "DDS discovery": _discovery,
    "DDS profile for images": _images,
    "shared memory": _shared_memory,
    "model weights": _models,
    "torch": _torch,
    "PyBullet": _simulator,
}
