"""ros2 launch pcm_ros manipulation.launch.py instruction:="put the red mug to the left of the blue bowl"

The same nodes and parameters as `pcm launch manipulation`: both read pcm_ros.bringup. With an instruction the launch ends when it was
carried out; without one the system waits for goals on the action /consensus/manipulate.
"""

import sys

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, LifecycleTransition
from lifecycle_msgs.msg import Transition

from pcm_ros import bringup


def start(context: LaunchContext) -> list:
    values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in bringup.MANIPULATION_ARGUMENTS}
    system = bringup.manipulation(values)
    actions: list = [SetEnvironmentVariable(name, value) for name, value in bringup.environment(context.environment).items()]
    actions += [
        LifecycleNode(
            package="pcm_ros",
            executable=node.executable,
            name=node.name,
            namespace="",
            parameters=[str(system.parameter_file), dict(node.parameters)],
            remappings=list(node.remappings.items()),
            output="screen",
        )
        for node in system.nodes
    ]
    # Not LifecycleNode(autostart=True): newer releases of launch_ros only.
    transitions = [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE]
    names = [f"/{node.name}" for node in system.nodes]
    actions.append(LifecycleTransition(lifecycle_node_names=names, transition_ids=transitions))
    if system.instruction:
        words = [sys.executable, "-m", "pcm_ros.cli", "send", system.instruction, "--seed", str(system.seed), "--timeout", "180"]
        client = ExecuteProcess(cmd=words, name="send", output="screen")
        end = OnProcessExit(
            target_action=client,
            on_exit=lambda event, _: [
                LogInfo(msg="the goal was reached" if event.returncode == 0 else f"not reached (exit code {event.returncode})"),
                EmitEvent(event=Shutdown(reason="the instruction has been carried out or given up")),
            ],
        )
        actions += [client, RegisterEventHandler(end)]
    return actions


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs; `--show-args` lists the arguments."""
    arguments = [
        DeclareLaunchArgument(argument.name, default_value=argument.default, description=argument.description)
        for argument in bringup.MANIPULATION_ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
