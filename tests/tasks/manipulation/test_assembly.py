"""One configuration makes the whole system, and says what is wrong with itself."""

from __future__ import annotations

from typing import Any

import pytest

from pcm_ros.consensus import Batch, Cascade
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.sight.words import VOCABULARY
from pcm_ros.tasks.manipulation.assembly import (
    ManipulationConfig,
    build_consensus,
    build_generator,
    build_grounder,
    build_perception,
    build_relation_scorer,
    build_vision,
    embedded_clip,
    embedded_segmenter,
    load_class,
)
from pcm_ros.tasks.manipulation.workcell import WorkcellLimits


class _Relation:
    differentiable = False
    cost = 1e-4
    name = "relation:front"

    def energy(self, batch: Batch, context: Any) -> Any:
        raise NotImplementedError


def consensus(**settings: Any) -> Any:
    config = ManipulationConfig(**settings)
    return build_consensus(config, build_generator(config), [_Relation()])


def test_the_embedded_models_are_loaded_once() -> None:
    assert embedded_segmenter() is embedded_segmenter()
    assert embedded_clip("pcm-clip-resnet") is embedded_clip("pcm-clip-resnet")


def test_the_default_configuration_loads() -> None:
    config = ManipulationConfig()
    vision = build_vision()
    grounder = build_grounder(config.grounders, vision)
    assert build_relation_scorer("front", config, vision, grounder).name == "relation:front"
    build_perception(WorkcellLimits((0, 0, 0), (1, 1, 1)), config, vision, grounder)
    assert "red mug" in VOCABULARY


def test_the_stages_of_the_ensemble() -> None:
    built = consensus(finalists=7)
    assert {"relation:front", "reach", "workspace", "grasp", "collision", "stability"} < set(built.ensemble.names)
    assert built.generator.config.count == 256
    built.ensemble.close()


@pytest.mark.parametrize("quorum", [1, 1.0])
def test_a_quorum_is_a_share_however_it_is_written(quorum: float) -> None:
    """A parameter file may say 1 for 1.0."""
    built = consensus(quorum=quorum)
    (first, _), *_ = built.ensemble.stages
    assert first.quorum == len(first.names) > 1
    built.ensemble.close()


def test_own_scorers_by_name() -> None:
    built = consensus(extra_scorers=("unruly_scorers:Forbidding",), weights=(("forbidding", 0.5),))
    assert "forbidding" in built.ensemble.names
    built.ensemble.close()


@pytest.mark.parametrize("path", ["", "nowhere:Class", "unruly_scorers:Nothing", "unruly_scorers", ":", "os.path:join:x"])
def test_scorers_that_cannot_be_loaded(path: str) -> None:
    with pytest.raises(ValueError, match="it must read module:Class"):
        load_class(path)


def test_iterations_end_without_gain_unless_that_is_not_wanted() -> None:
    built = [consensus(), consensus(gain=0.0), consensus(all_iterations=True)]
    assert [(one.stop.patience, one.stop.tolerance) for one in built] == [(1, 0.05), (1, 0.0), (None, 0.05)]
    for one in built:
        one.ensemble.close()


@pytest.mark.parametrize(
    ("stage", "last", "passed_on"),
    [((), "stability", [None]), (("twin",), "twin", [8, None]), (("appearance", "twin"), "appearance", [8, 2, None])],
)
def test_the_dearest_scorer_comes_last_and_sees_the_fewest(stage: tuple[str, ...], last: str, passed_on: list[int | None]) -> None:
    built = consensus(last_stage=stage)
    assert isinstance(built.ensemble, Cascade)
    assert built.ensemble.names[-1] == last
    assert [keep for _, keep in built.ensemble.stages] == passed_on
    built.ensemble.close()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"proposals": 0}, "count"),
        ({"iterations": 0}, "max_iterations|min_iterations"),
        ({"elite_fraction": 0.0}, "elite_fraction"),
        ({"smoothing": 1.5}, "smoothing"),
        ({"minimum_std": (0.0, -1.0, 0.0)}, "minimum_std"),
        ({"normalise": "loud"}, "normalise"),
        ({"aggregate": "mode"}, "aggregate"),
        ({"agreement": 1.5}, "agreement"),
        ({"timeout": -1.0}, "timeout"),
        ({"finalists": 0}, "keep|finalists"),
        ({"gain": -0.1}, "tolerance"),
        ({"last_stage": ("oracle",)}, "oracle.*allowed: .*twin"),
        ({"weights": (("nobody", 1.0),)}, "nobody"),
        ({"weights": (("twin", 0.0),)}, "'twin' is 0.*last_stage"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        consensus(**settings)


@pytest.mark.parametrize("settings", [{"attempts": 0}, {"holds": 2.0}])
def test_policy_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        _ = ManipulationConfig(**settings).policy


def test_unknown_grounders() -> None:
    with pytest.raises(ModelUnavailable, match=r"'clip-of-dreams' is not a known clip; known: .*pcm-clip-resnet"):
        build_grounder(("segmenter", "clip-of-dreams"), build_vision())
    with pytest.raises(ValueError, match="at least one"):
        build_grounder((), build_vision())
