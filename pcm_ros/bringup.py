"""Which processes make up a system, and with which parameters: the one list that `pcm launch` and the launch files read.

The parameter file of a system (config/<system>.yaml) has one section per node. A section that has a parameter `scorer` is a scorer node: an
expert of one's own is one more section, and no code changes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pcm_ros.command_options import listed

RELATION_SCORER = "pcm_ros.tasks.manipulation.assembly:build_relation_scorer"
_FAST_DDS_2 = ("humble", "iron", "jazzy")
Value = bool | int | float | str | list[str]


class LaunchError(ValueError):
    """An argument, a parameter file or a system that does not exist or cannot be used. The message names the remedy."""


@dataclass(frozen=True)
class Argument:
    """A launch argument `name:=value`."""

    name: str
    default: str
    description: str


@dataclass(frozen=True)
class NodeSpec:
    """One process.

    Attributes:
        executable: a module of pcm_ros.nodes, and the file of that name in lib/pcm_ros.
        name: of the node.
        parameters: what the parameter file does not say, or says otherwise.
        essential: whether the system cannot go on without it.
        remappings: names of topics, services and actions to be replaced, old -> new.
    """

    executable: str
    name: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    essential: bool = True
    remappings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """What `pcm launch NAME` starts.

    Attributes:
        nodes: in the order in which they are activated.
        parameter_file: read by all of them.
        instruction / seed: the goal to send once all are active; an empty instruction: none, the system waits for goals.
        hint: how goals are sent, for people.
        namespace: of all nodes, without slashes at its ends; empty: none.
    """

    nodes: tuple[NodeSpec, ...]
    parameter_file: Path
    instruction: str = ""
    seed: int = 0
    hint: str = 'waiting for goals: pcm send "put the red mug to the left of the blue bowl"'
    namespace: str = ""


MANIPULATION_ARGUMENTS = (
    Argument("instruction", "", "what the robot shall do; empty: the system waits for goals on the action consensus/manipulate"),
    Argument("seed", "0", "seed of the planner: the same seed on the same images gives the same actions"),
    Argument("scene", "0", "seed of the simulated scene"),
    Argument("task", "demo", "what the simulated scene consists of: the name of a task of the simulator"),
    Argument("views", "", "cameras to use, separated by commas; empty: all that the parameter file has scorers for"),
    Argument("simulator", "true", "whether to start the simulator; false: a real cell's driver offers topics and action"),
    Argument("config", "", "parameter file; empty: config/manipulation.yaml of the package"),
    Argument("output", "runs", "folder for the video of the episode; empty: none is made"),
    Argument("namespace", "", "ROS namespace of all nodes, for several systems in one domain; empty: none"),
)

SERVICES_ARGUMENTS = (
    Argument("tasks", "", "tasks to serve, separated by commas; empty: all, or those that the parameter file names"),
    Argument("warm_up", "", "tasks whose models are loaded at once instead of by the first request, separated by commas"),
    Argument("config", "", "parameter file; empty: config/services.yaml of the package"),
    Argument("namespace", "", "ROS namespace of the node and its services; empty: none"),
)


def folder(name: str) -> Path:
    """The package's launch/ or config/ folder: of the sources in an editable install, else of the installed share/pcm_ros."""
    sources = Path(__file__).resolve().parents[1]
    if (sources / "package.xml").is_file():
        return sources / name
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return Path(get_package_share_directory("pcm_ros")) / name
    except PackageNotFoundError as error:
        raise LaunchError("package pcm_ros is not in the ament index: source the workspace's setup file, or reinstall with pip") from error


def environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the processes of a system need in their environment and `given` leaves unset."""
    defaults = {
        profiles_variable(given): str(folder("config") / "fastdds.xml"),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "RCUTILS_LOGGING_USE_STDOUT": "0",
        "PYTHONUNBUFFERED": "1",
        # Many processes on few cores: a second thread in each makes all of them slower.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # glibc keeps a heap for each thread, and what one thread freed is of no use to the others: nodes would grow for hundreds of
        # episodes. Fixed thresholds give freed images back to the system.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "4194304",
        "MALLOC_TRIM_THRESHOLD_": "16777216",
    }
    return {name: value for name, value in defaults.items() if name not in given}


def profiles_variable(given: Mapping[str, str] = os.environ) -> str:
    """The variable by which Fast DDS finds its profiles: Fast DDS 2, up to Jazzy, knows another one than Fast DDS 3."""
    return "FASTRTPS_DEFAULT_PROFILES_FILE" if given.get("ROS_DISTRO", "") in _FAST_DDS_2 else "FASTDDS_DEFAULT_PROFILES_FILE"


def namespace_complaint(name: str) -> str:
    """What is wrong with a namespace; empty: nothing."""
    if not name or re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", name, re.ASCII):
        return ""
    return f"namespace is '{name}'; allowed: names of letters, digits and _ that begin with no digit, with / between them"


def parse_arguments(words: Sequence[str], known: Sequence[Argument]) -> dict[str, str]:
    """["name:=value", ...] over the defaults. Raises LaunchError for words of another form and unknown names."""
    values = {argument.name: argument.default for argument in known}
    for word in words:
        name, sign, value = word.partition(":=")
        if not sign:
            raise LaunchError(f"argument '{word}' is not of the form name:=value; allowed names: {', '.join(values)}")
        if name not in values:
            raise LaunchError(f"unknown argument '{name}'; allowed: {', '.join(values)}")
        values[name] = value
    return values


def read_parameters(path: Path) -> dict[str, dict[str, Any]]:
    """Node name -> parameters of a ROS parameter file; a section "/**/name", which is for the node in any namespace, counts as "name".

    Raises:
        LaunchError: it is missing or of another form.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LaunchError(f"parameter file '{path}' cannot be read: {error}") from error
    try:
        return {_node_of(str(name)): dict(section["ros__parameters"] or {}) for name, section in content.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise LaunchError(f"parameter file '{path}': each section must be 'node_name: {{ros__parameters: {{...}}}}' ({error!r})") from error


def _node_of(section: str) -> str:
    return section if section == "/**" else section.rpartition("/")[2]


def check_sections(system: System, namespace: str) -> None:
    """Raises LaunchError for sections of a system's parameter file that are of nodes in another namespace: ROS would pass over them.

    Args:
        namespace: in which the nodes come to be, without slashes at its ends; empty: none.
    """
    names = {node.name for node in system.nodes}
    for section in yaml.safe_load(system.parameter_file.read_text(encoding="utf-8")):
        within, _, name = str(section).rpartition("/")
        if name in names and within != "/**" and within.strip("/") != namespace:
            place = f"namespace '{namespace}'" if namespace else "no namespace"
            raise LaunchError(
                f"parameter file '{system.parameter_file}': section '{section}' is not of the node '{name}' in {place}; write '/**/{name}'"
            )


def manipulation(values: Mapping[str, str]) -> System:
    """The nodes of the manipulation system: simulator, generator, one scorer for each view or model, consensus."""
    path = Path(values["config"]) if values["config"] else folder("config") / "manipulation.yaml"
    sections = read_parameters(path)
    scorers = {name: parameters for name, parameters in sections.items() if "scorer" in parameters}
    available = list(dict.fromkeys(str(parameters.get("view", "front")) for parameters in scorers.values()))
    views = list(listed(values["views"])) or available
    if unknown := set(views) - set(available):
        raise LaunchError(f"argument 'views' names {sorted(unknown)}; '{path}' has scorers for {available}")
    chosen = {
        name: str(parameters.get("view", "front")) for name, parameters in scorers.items() if parameters.get("view", "front") in views
    }
    if not chosen:
        raise LaunchError(f"parameter file '{path}' has no section with a parameter 'scorer': at least one scorer is needed")
    nodes = []
    if _boolean("simulator", values["simulator"]):
        nodes.append(NodeSpec("sim_node", "sim", {"task": values["task"], "seed": _integer("scene", values["scene"])}))
    nodes.append(NodeSpec("generator_node", "generator", {"cameras": views}))
    nodes += [NodeSpec("scorer_node", name, essential=False) for name in chosen]
    judges = [name for name in chosen if scorers[name]["scorer"] == RELATION_SCORER]
    if not judges:
        raise LaunchError(
            f"parameter file '{path}' has no section with 'scorer: {RELATION_SCORER}' for the views {views}: at least one is needed, to "
            "say which objects are meant and whether the goal holds"
        )
    of_view = [chosen[name] for name in judges]
    consensus: dict[str, Value] = {
        "cameras": views,
        "scorers": list(chosen),
        # As in one process; a second one of a view is called as its section.
        "scorer_names": [
            f"relation:{chosen[name]}" if name in judges and of_view.index(chosen[name]) == judges.index(name) else name for name in chosen
        ],
        "scorer_views": list(chosen.values()),
        "judges": judges,
        "output": _absolute(values["output"]),
    }
    nodes.append(NodeSpec("consensus_node", "consensus", consensus))
    namespace = _namespace(values["namespace"])
    return System(tuple(nodes), path.resolve(), values["instruction"], _integer("seed", values["seed"]), namespace=namespace)


def services(values: Mapping[str, str]) -> System:
    """The one node of the services system: mathematics and what else `pcm_ros.nodes.services` lists."""
    path = Path(values["config"]) if values["config"] else folder("config") / "services.yaml"
    if not path.is_file():
        raise LaunchError(f"parameter file '{path}' does not exist; remedy: leave `config` out, or name a file")
    parameters: dict[str, Value] = {name: words for name in ("tasks", "warm_up") if (words := list(listed(values[name])))}
    hint = "waiting for requests, see `ros2 service list`, or ask from Python: pcm_ros.services_client.ServicesClient"
    read_parameters(path)  # so that what is wrong with it is said at once
    nodes = (NodeSpec("services_node", "services", parameters),)
    return System(nodes, path.resolve(), hint=hint, namespace=_namespace(values["namespace"]))


SYSTEMS = {"manipulation": (MANIPULATION_ARGUMENTS, manipulation), "services": (SERVICES_ARGUMENTS, services)}


def system(name: str, words: Sequence[str]) -> System:
    """The system of this name with arguments of the form name:=value. Raises LaunchError."""
    if name not in SYSTEMS:
        raise LaunchError(f"unknown system '{name}'; allowed: {', '.join(SYSTEMS)}")
    arguments, make = SYSTEMS[name]
    made = make(parse_arguments(words, arguments))
    check_sections(made, made.namespace)
    return made


def command(node: NodeSpec, parameter_file: Path, namespace: str = "") -> list[str]:
    """The command line of one process."""
    words = [sys.executable, "-m", f"pcm_ros.nodes.{node.executable}", "--ros-args", "-r", f"__node:={node.name}"]
    if namespace:
        words += ["-r", f"__ns:=/{namespace}"]
    words += ["--params-file", str(parameter_file)]
    for old, new in node.remappings.items():
        words += ["-r", f"{old}:={new}"]
    for name, value in node.parameters.items():
        words += ["-p", f"{name}:={json.dumps(value)}"]  # JSON is YAML that keeps "0" a text and a list of texts one value
    return words


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise LaunchError(f"argument '{name}' is '{text}'; allowed: true, false")
    return text.lower() == "true"


def _integer(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**63:
        raise LaunchError(f"argument '{name}' is '{text}'; allowed: a whole number from 0 to 2**63 - 1")
    return int(text)


def _namespace(name: str) -> str:
    if complaint := namespace_complaint(name):
        raise LaunchError(f"argument {complaint}")
    return name.strip("/")


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if path else ""
