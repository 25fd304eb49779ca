"""What a system is made of, from arguments and parameter files: errors name what is wrong, and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pcm_ros import bringup
from pcm_ros.bringup import RELATION_SCORER, LaunchError, command, environment, namespace_complaint, system
from pcm_ros.configuration import manipulation_config_of


def parameters(folder: Path, **changes: Any) -> Path:
    """The shipped parameter file with other sections: None takes one away."""
    content = yaml.safe_load((bringup.folder("config") / "manipulation.yaml").read_text())
    for name, section in changes.items():
        if section is None:
            del content[f"/**/{name}"]
        else:
            content[name if name == "sim" else f"/**/{name}"] = {"ros__parameters": section}
    path = folder / "parameters.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_all_nodes_are_in_the_namespace() -> None:
    made = system("manipulation", ["namespace:=/cell/left"])
    assert made.namespace == "cell/left"
    assert all("__ns:=/cell/left" in command(node, made.parameter_file, made.namespace) for node in made.nodes)
    assert not any(word.startswith("__ns") for word in command(made.nodes[0], made.parameter_file))


@pytest.mark.parametrize("name", ["2nd", "a b", "a//b", "a/", "/", "-r", "é"])
def test_a_name_that_is_no_namespace_is_refused(name: str) -> None:
    with pytest.raises(LaunchError, match=r"argument namespace is '.*'; allowed: names of letters"):
        system("services", [f"namespace:={name}"])


@pytest.mark.parametrize("name", ["", "robot1", "/robot1", "cell/left_2"])
def test_names_of_namespaces(name: str) -> None:
    assert namespace_complaint(name) == ""


def test_a_section_that_a_namespace_hides_is_refused(tmp_path: Path) -> None:
    path = parameters(tmp_path, sim={"republish_period": 2.0})
    assert system("manipulation", [f"config:={path}"]).nodes
    for section, namespace in (("sim", "robot1"), ("/sim", "robot1"), ("/robot1/sim", "robot2"), ("/robot1/sim", "")):
        path.write_text(path.read_text().replace("\nsim:", f"\n{section}:"))
        with pytest.raises(LaunchError, match=rf"section '{section}' is not of the node 'sim' in .*; write '/\*\*/sim'"):
            system("manipulation", [f"config:={path}", f"namespace:={namespace}"])
        path.write_text(path.read_text().replace(f"\n{section}:", "\nsim:"))
    path.write_text(path.read_text().replace("\nsim:", "\n/robot1/sim:"))
    assert system("manipulation", [f"config:={path}", "namespace:=robot1"]).nodes


def test_a_second_relation_scorer_of_a_view_has_a_name_of_its_own(tmp_path: Path) -> None:
    path = parameters(tmp_path, scorer_small={"scorer": RELATION_SCORER, "view": "front", "grounders": ["segmenter"]})
    names = system("manipulation", [f"config:={path}"]).nodes[-1].parameters["scorer_names"]
    assert isinstance(names, list) and len(set(names)) == len(names) == 6
    assert {"relation:front", "scorer_small"} <= set(names)


def test_scorers_of_ones_own_alone_do_not_do(tmp_path: Path) -> None:
    own = {"scorer_top": {"scorer": "my.module:Scorer", "view": "top"}}
    path = parameters(tmp_path, **own, **dict.fromkeys(f"scorer_{view}" for view in ("front", "left", "right", "back")))
    with pytest.raises(LaunchError, match=r"no section with 'scorer: .*build_relation_scorer' for the views \['top'\]"):
        system("manipulation", [f"config:={path}"])


@pytest.mark.parametrize(("distribution", "name"), [("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"), ("", "FASTDDS_DEFAULT_PROFILES_FILE")])
def test_fast_dds_finds_its_profile_in_each_distribution(distribution: str, name: str) -> None:
    found = environment({"ROS_DISTRO": distribution})
    assert Path(found[name]).name == "fastdds.xml"
    assert name not in environment({"ROS_DISTRO": distribution, name: "mine.xml"})


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"proposals": "abc"}, "'proposals' is 'abc'; allowed: a whole number, such as 256"),
        ({"proposals": 2.5}, "'proposals' is 2.5; allowed: a whole number"),
        ({"proposals": True}, "'proposals' is True"),
        ({"timeout": "long"}, "'timeout' is 'long'; allowed: a number"),
        ({"weights": 5}, "'weights' is 5; allowed: a list"),
        ({"normalise": 1}, "'normalise' is 1; allowed: text"),
    ],
)
def test_values_of_another_type_are_refused_by_name(tmp_path: Path, entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        manipulation_config_of(parameters(tmp_path, consensus=entry))
    assert manipulation_config_of(parameters(tmp_path, consensus={"timeout": 20, "proposals": 32})).proposals == 32
