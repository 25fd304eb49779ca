"""ros2 launch pcm_ros services.launch.py warm_up:=mathematics

The same node and parameters as `pcm launch services`: both read pcm_ros.bringup. It serves /pcm/solve_math and its kind until Ctrl-C.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, LifecycleTransition
from lifecycle_msgs.msg import Transition

from pcm_ros import bringup


def start(context: LaunchContext) -> list:
    values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in bringup.SERVICES_ARGUMENTS}
    system = bringup.services(values)
    actions: list = [SetEnvironmentVariable(name, value) for name, value in bringup.environment(context.environment).items()]
    actions += [
        LifecycleNode(
            package="pcm_ros",
            executable=node.executable,
            name=node.name,
            namespace="",
            parameters=[str(system.parameter_file), dict(node.parameters)],
            output="screen",
        )
        for node in system.nodes
    ]
    transitions = [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE]
    actions.append(LifecycleTransition(lifecycle_node_names=[f"/{node.name}" for node in system.nodes], transition_ids=transitions))
    return actions


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs; `--show-args` lists the arguments."""
    arguments = [
        DeclareLaunchArgument(argument.name, default_value=argument.default, description=argument.description)
        for argument in bringup.SERVICES_ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
