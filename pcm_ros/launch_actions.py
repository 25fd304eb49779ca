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
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, LifecycleTransition
from launch_ros.event_handlers import OnStateTransition
from lifecycle_msgs.msg import Transition

from pcm_ros import bringup

PYTHON = "python3"
"""Of the PATH, as the nodes use it: that of `ros2` itself may be another one, without what this package needs."""


def declared(arguments: Sequence[bringup.Argument]) -> list[Action]:
    """The arguments as `ros2 launch --show-args` lists them."""
    return [
        DeclareLaunchArgument(argument.name, default_value=argument.default, description=argument.description) for argument in arguments
    ]


def description(
    arguments: Sequence[bringup.Argument],
    make: Callable[[Mapping[str, str]], bringup.System],
    more: Callable[[bringup.System, str], Sequence[Action]] = lambda system, namespace: (),
) -> LaunchDescription:
    """A launch file's description: a system's nodes, each configured and activated. The launch ends, and fails, with any of them that
    cannot be, and with any that ends without which the system cannot go on.

    Args:
        arguments: of the system. make: the system from their values.
        more: actions besides the nodes, from the system and the namespace in which its nodes come to be.
    """

    def start(context: LaunchContext) -> list[Action]:
        values = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in arguments}
        system = make(values)
        outer = context.launch_configurations.get("ros_namespace", "")  # of a PushRosNamespace around this launch file
        namespace = "/".join(part for part in (outer.strip("/"), system.namespace) if part)
        bringup.check_sections(system, namespace)
        return [*_started(system, context.environment, namespace), *more(system, namespace)]

    return LaunchDescription([*declared(arguments), OpaqueFunction(function=start)])


def ending_with(process: ExecuteProcess, well: str, badly: str) -> list[Action]:
    """A process with which the whole launch ends: well, saying `well`, if its exit code is 0, else with an error that says `badly`."""

    def end(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if event.returncode != 0 and not context.is_shutdown:
            raise RuntimeError(f"{badly} (exit code {event.returncode})")
        return [LogInfo(msg=well), EmitEvent(event=Shutdown(reason=f"{process.name} has ended"))]

    return [process, RegisterEventHandler(OnProcessExit(target_action=process, on_exit=end))]


def _started(system: bringup.System, environment: Mapping[str, str], namespace: str) -> list[Action]:
    nodes = [
        LifecycleNode(
            package="pcm_ros",
            executable=node.executable,
            name=node.name,
            namespace=system.namespace,
            parameters=[str(system.parameter_file), dict(node.parameters)],
            remappings=list(node.remappings.items()),
            output="screen",
        )
        for node in system.nodes
    ]
    actions: list[Action] = [SetEnvironmentVariable(name, value) for name, value in bringup.environment(environment).items()]
    actions += nodes
    for spec, node in zip(system.nodes, nodes, strict=True):
        for start, goal, verb in (("configuring", "unconfigured", "configured"), ("activating", "inactive", "activated")):
            actions.append(RegisterEventHandler(_failing(node, start, goal, f"node '{spec.name}' could not be {verb}: see its messages")))
        if spec.essential:
            actions.append(RegisterEventHandler(_needed(node, spec.name)))
    # Not LifecycleNode(autostart=True): newer releases of launch_ros only.
    names = [f"/{namespace}/{node.name}" if namespace else f"/{node.name}" for node in system.nodes]
    transitions = [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE]
    return [*actions, LifecycleTransition(lifecycle_node_names=names, transition_ids=transitions)]


def _failing(node: LifecycleNode, start: str, goal: str, message: str) -> OnStateTransition:
    """Ends the launch with an error where a transition leads back."""

    def fail(context: LaunchContext) -> list[Action]:
        if context.is_shutdown:
            return []
        raise RuntimeError(message)

    return OnStateTransition(target_lifecycle_node=node, start_state=start, goal_state=goal, entities=[OpaqueFunction(function=fail)])


def _needed(node: LifecycleNode, name: str) -> OnProcessExit:
    """Ends the launch with an error where a node ends without which the system cannot go on."""

    def fail(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if context.is_shutdown:
            return []
        raise RuntimeError(f"node '{name}' has ended (exit code {event.returncode}): the system cannot go on without it")

    return OnProcessExit(target_action=node, on_exit=fail)
