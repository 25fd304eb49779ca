"""ros2 launch pcm_ros benchmark.launch.py suite:=relations-1 episodes:=20

Runs `pcm bench ros`: it starts the manipulation system on a ROS domain of its own, sends it one instruction after the other, and judges the
outcome by the simulator's truth. The launch ends with the bench; its report lies at json:= (HTML beside it).
"""

import sys

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, LogInfo, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration

ARGUMENTS = {
    "suite": ("relations-1", "benchmark task of the simulator: see pcm bench ros --help"),
    "episodes": ("20", "number of episodes, without a restart of the system"),
    "seed": ("1000", "seed of the first episode; the next ones count up"),
    "compare": ("0", "so many of the first episodes are run in one process too, for the overhead of ROS"),
    "json": ("runs/ros.json", "where the results go; a run that was interrupted goes on"),
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs; `--show-args` lists the arguments."""
    words = [word for name in ARGUMENTS for word in (f"--{name}", LaunchConfiguration(name))]
    bench = ExecuteProcess(
        cmd=[sys.executable, "-m", "pcm_ros.cli", "bench", "ros", *words],
        name="bench",
        output="screen",
        emulate_tty=True,
        sigterm_timeout="60",
    )
    end = OnProcessExit(
        target_action=bench,
        on_exit=lambda event, _: [
            LogInfo(msg="the bench is through" if event.returncode == 0 else f"the bench ended with exit code {event.returncode}"),
            EmitEvent(event=Shutdown(reason="the bench has ended")),
        ],
    )
    arguments = [DeclareLaunchArgument(name, default_value=value, description=text) for name, (value, text) in ARGUMENTS.items()]
    return LaunchDescription([*arguments, bench, RegisterEventHandler(end)])
