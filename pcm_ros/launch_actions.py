"""What the launch files have in common: actions of package launch_ros that start a system of `pcm_ros.bringup`.

Only launch files import this: launch and launch_ros belong to an installation of ROS 2, and are not needed by `pcm launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from launch import Action, LaunchContext, LaunchDescription
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


def declared(arguments: Sequence[bringup.Argument]) -> list[Action]:
    """The arguments as `ros2 launch --show-args` lists them."""
    return [
        DeclareLaunchArgument(argument.name, default_value=argument.default, description=argument.description) for argument in arguments
    ]


def description(
    arguments: Sequence[bringup.Argument],
    make: Callable[[Mapping[str, str]], bringup.System],
    more: Callable[[bringup.System], Sequence[Action]] = lambda system: (),
) -> LaunchDescription:
    """A launch file's description: a system's nodes, configured and activated in their order.

    Args:
        arguments: of the system. make: the system from their values. more: actions besides the nodes.
    """

    def start(context: LaunchContext) -> list[Action]:
        values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in arguments}
        system = make(values)
        return [*_started(system, context.environment), *more(system)]

    return LaunchDescription([*declared(arguments), OpaqueFunction(function=start)])


def ending_with(process: ExecuteProcess, well: str, badly: str) -> list[Action]:
    """A process with which the whole launch ends. `well` is logged if its exit code is 0, else `badly` and the code."""
    end = OnProcessExit(
        target_action=process,
        on_exit=lambda event, _: [
            LogInfo(msg=well if event.returncode == 0 else f"{badly} (exit code {event.returncode})"),
            EmitEvent(event=Shutdown(reason=f"{process.name} has ended")),
        ],
    )
    return [process, RegisterEventHandler(end)]


def _started(system: bringup.System, environment: Mapping[str, str]) -> list[Action]:
    actions: list[Action] = [SetEnvironmentVariable(name, value) for name, value in bringup.environment(environment).items()]
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
    actions.append(LifecycleTransition(lifecycle_node_names=[f"/{node.name}" for node in system.nodes], transition_ids=transitions))
    return actions
