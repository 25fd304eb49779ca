"""ros2 launch pcm_ros manipulation.launch.py instruction:="put the red mug to the left of the blue bowl"

The same nodes and parameters as `pcm launch manipulation`: both read pcm_ros.bringup. With an instruction the launch ends when it was
carried out; without one the system waits for goals on the action /consensus/manipulate.
"""

from launch import Action, LaunchDescription
from launch.actions import ExecuteProcess

from pcm_ros import bringup
from pcm_ros.launch_actions import PYTHON, description, ending_with


def goal(system: bringup.System, namespace: str) -> list[Action]:
    """The client that sends the instruction, if there is one, to the system in this namespace."""
    if not system.instruction:
        return []
    words = [PYTHON, "-m", "pcm_ros.cli", "send", system.instruction, "--seed", str(system.seed), "--timeout", "180"]
    if namespace:
        words += ["--namespace", namespace]
    return ending_with(ExecuteProcess(cmd=words, name="send", output="screen"), "the goal was reached", "the goal was not reached")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs; `--show-args` lists the arguments."""
    return description(bringup.MANIPULATION_ARGUMENTS, bringup.manipulation, goal)
