"""ros2 launch pcm_ros benchmark.launch.py suite:=relations-1 episodes:=20

Runs `pcm bench ros`: it starts the manipulation system on a ROS domain of its own, sends it one instruction after the other, and judges the
outcome by the simulator's truth. The launch ends with the bench; its report lies at json:= (HTML beside it).
"""

from launch import LaunchDescription
from launch.actions import ExecuteProcess
from launch.substitutions import LaunchConfiguration

from pcm_ros.bringup import Argument
from pcm_ros.launch_actions import PYTHON, declared, ending_with

ARGUMENTS = (
    Argument("suite", "relations-1", "benchmark task of the simulator: see pcm bench ros --help"),
    Argument("episodes", "20", "number of episodes, without a restart of the system"),
    Argument("seed", "1000", "seed of the first episode; the next ones count up"),
    Argument("compare", "0", "so many of the first episodes are run in one process too, for the overhead of ROS"),
    Argument("json", "runs/ros.json", "where the results go"),
)


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs; `--show-args` lists the arguments."""
    words = [word for argument in ARGUMENTS for word in (f"--{argument.name}", LaunchConfiguration(argument.name))]
    bench = ExecuteProcess(
        cmd=[PYTHON, "-m", "pcm_ros.cli", "bench", "ros", *words],
        name="bench",
        output="screen",
        emulate_tty=True,
        sigterm_timeout="60",
    )
    return LaunchDescription([*declared(ARGUMENTS), *ending_with(bench, "the bench is through", "the bench did not get through")])
