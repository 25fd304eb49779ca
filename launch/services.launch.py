"""ros2 launch pcm_ros services.launch.py warm_up:=mathematics

The same node and parameters as `pcm launch services`: both read pcm_ros.bringup. It serves /pcm/solve_math and its kind until Ctrl-C.
"""

from launch import LaunchDescription

from pcm_ros import bringup
from pcm_ros.launch_actions import description


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs; `--show-args` lists the arguments."""
    return description(bringup.SERVICES_ARGUMENTS, bringup.services)
