"""Puts the manipulation system together from one configuration: the same parts for one process, for ROS nodes and for benchmarks."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pcm_ros.consensus import Cascade, Consensus, CrossEntropy, Ensemble, Generator, Scorer, Stop
from pcm_ros.consensus.energies import Aggregate, Normalise
from pcm_ros.models import registry
from pcm_ros.models.embedded import embedded_clip, embedded_segmenter, embedded_shapes
from pcm_ros.models.loading import set_threads
from pcm_ros.models.registry import SHAPES
from pcm_ros.sight.words import VOCABULARY
from pcm_ros.tasks.manipulation.feasibility import (
    CollisionScorer,
    GraspScorer,
    ReachScorer,
    StabilityScorer,
    TargetScorer,
    TwinStabilityScorer,
    WorkspaceScorer,
)
from pcm_ros.tasks.manipulation.generator import GeneratorConfig, PickPlaceGenerator
from pcm_ros.tasks.manipulation.goal_picture import GoalPictureReader
from pcm_ros.tasks.manipulation.grounding import ClipGrounder, Grounder, GrounderEnsemble, SegmenterGrounder, ShapeGrounder
from pcm_ros.tasks.manipulation.perception import Perception
from pcm_ros.tasks.manipulation.policy import ManipulationPolicy, RelationJudge
from pcm_ros.tasks.manipulation.policy_config import PolicyConfig
from pcm_ros.tasks.manipulation.predicted_view_scorer import PredictedViewScorer
from pcm_ros.tasks.manipulation.relation_scorer import RelationScorer
from pcm_ros.tasks.manipulation.vision import Segmenter, Vision
from pcm_ros.tasks.manipulation.workcell import Workcell, WorkcellLimits


@dataclass(frozen=True)
class ManipulationConfig:
    """All that can be set. Ranges are checked by the parts that use the values; each error names the value and the range.

    Attributes:
        grounders: names of the experts that ground phrases: "segmenter", any CLIP of `pcm models`, "pcm-shapes" (points).
        proposals: per iteration. iterations: at most. agreement: at which the loop ends early, 0..1.
        elite_fraction, smoothing, minimum_std: of the cross-entropy method; minimum_std = (x metres, y metres, yaw radians). No more than
            `finalists` and the leader of earlier rounds are ever elite, since the last stage sees no others.
        normalise, aggregate: of the first stage (see Ensemble); the last ones add up nats. With others than "none" and "sum" things are not
            moved out of each other's way: places found beforehand are asked for by an energy in nats.
        quorum: share of the scorers that must answer. timeout: seconds that a scorer may take for one batch.
        gain: nats by which the best proposal must get better for the iterations to go on, >= 0; 0: however little.
        all_iterations: whether all of them are made, whatever the agreement and the gain: for comparisons at equal compute.
        finalists: proposals that the last, dear stage sees in each iteration.
        last_stage: names of its scorers: "twin" (physics), "appearance" (vision-language experts on predicted views); none: the cheap ones
            decide alone.
        pictured: of the finalists, so many are seen by "appearance".
        naming: whether perception names the objects it finds; without it, people are told of "object", and no phrase is refused
            because another name fits better.
        weights: scorer name -> weight; 1 where nothing is said.
        extra_scorers: "module:Class" of scorers of your own; each class is called without arguments.
        attempts, holds, present: of the policy (see PolicyConfig).
    """

    grounders: tuple[str, ...] = ("segmenter", "pcm-clip-resnet", "pcm-clip-towers", "pcm-clip-colors", SHAPES)
    proposals: int = 256
    iterations: int = 6
    agreement: float = 0.98
    elite_fraction: float = 0.08
    smoothing: float = 0.2
    minimum_std: tuple[float, float, float] = (0.004, 0.004, 0.05)
    normalise: Normalise = "none"
    aggregate: Aggregate = "sum"
    quorum: float = 0.6
    timeout: float = 20.0
    gain: float = 0.05
    all_iterations: bool = False
    finalists: int = 8
    last_stage: tuple[str, ...] = ("twin",)
    pictured: int = 2
    naming: bool = True
    weights: tuple[tuple[str, float], ...] = ()
    extra_scorers: tuple[str, ...] = ()
    attempts: int = 4
    holds: float = 0.3
    present: float = PolicyConfig.present

    @property
    def policy(self) -> PolicyConfig:
        return PolicyConfig(attempts=self.attempts, holds=self.holds, present=self.present)


@functools.cache
def clip_expert(name: str) -> ClipGrounder:
    """A CLIP that grounds phrases, one a process: whoever asks of a region what was asked before gets the answer of then."""
    return ClipGrounder(embedded_clip(name))


@functools.cache
def shape_expert() -> ShapeGrounder:
    """The expert on shapes, one a process. Raises ModelUnavailable."""
    return ShapeGrounder(embedded_shapes())


def build_vision(segmenter: Segmenter | None = None) -> Vision:
    """A segmenter (default: the embedded one) with its per-image memory."""
    set_threads()
    return Vision(segmenter or embedded_segmenter())


def build_grounder(names: Sequence[str], vision: Vision) -> GrounderEnsemble:
    """The vision-language experts of these names as one. Raises ModelUnavailable for an unknown name, ValueError for none."""
    return GrounderEnsemble(experts(names, vision), registry.calibration(names))


def experts(names: Sequence[str], vision: Vision) -> list[Grounder]:
    """The experts of these names with the log-odds that they were trained to give. Raises ModelUnavailable."""
    return [_expert(name, vision) for name in names]


def _expert(name: str, vision: Vision) -> Grounder:
    if name == "segmenter":
        return SegmenterGrounder(vision)
    return shape_expert() if name == SHAPES else clip_expert(name)


def build_perception(limits: WorkcellLimits, config: ManipulationConfig, vision: Vision, grounder: Grounder | None = None) -> Perception:
    """Perception that names objects by the given grounder (default: that of the configuration)."""
    return Perception(
        vision, limits, grounder=grounder or build_grounder(config.grounders, vision), vocabulary=VOCABULARY if config.naming else ()
    )


def build_goal_picture_reader(limits: WorkcellLimits, config: ManipulationConfig, vision: Vision | None = None) -> GoalPictureReader:
    """What reads goals from pictures, for `ManipulationPolicy.run`."""
    vision = vision or build_vision()
    grounder = build_grounder(config.grounders, vision)
    return GoalPictureReader(build_perception(limits, config, vision, grounder), grounder, VOCABULARY)


def build_relation_scorer(
    view: str, config: ManipulationConfig, vision: Vision | None = None, grounder: Grounder | None = None
) -> RelationScorer:
    """The relation scorer of one view."""
    vision = vision or build_vision()
    return RelationScorer(view, grounder or build_grounder(config.grounders, vision))


def build_generator(config: ManipulationConfig) -> PickPlaceGenerator:
    return PickPlaceGenerator(GeneratorConfig(count=config.proposals))


def feasibility_scorers() -> list[Scorer]:
    """The cheap geometric scorers: reach, workspace, grasp, collision, place in an arrangement, stability by contacts."""
    return [ReachScorer(), WorkspaceScorer(), GraspScorer(), CollisionScorer(), TargetScorer(), StabilityScorer()]


def last_scorers(config: ManipulationConfig) -> list[tuple[Scorer, int]]:
    """The dear scorers, the dearest last, and how many proposals each sees. Raises ValueError for an unknown name."""
    if unknown := set(config.last_stage) - {"twin", "appearance"}:
        raise ValueError(f"last_stage names {sorted(unknown)}; allowed: appearance, twin")
    found: list[tuple[Scorer, int]] = []
    if "twin" in config.last_stage:
        found.append((TwinStabilityScorer(), config.finalists))
    if "appearance" in config.last_stage:
        # The segmenter would have to go through each whole picture: it is asked only where nobody else can be.
        names = [name for name in config.grounders if name != "segmenter"] or list(config.grounders)
        found.append((PredictedViewScorer(build_grounder(names, build_vision())), config.pictured))
    return found


def load_class(path: str) -> Any:
    """The class at "module:Class". Raises ValueError with the reason when there is none."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"scorer '{path}' cannot be loaded ({error}); it must read module:Class, and the module must be importable"
        ) from error


def build_consensus(config: ManipulationConfig, generator: Generator, relation_scorers: Sequence[Scorer]) -> Consensus:
    """The engine for manipulation: cheap experts for all proposals, dear ones for the few best.

    Args:
        generator: local or remote. relation_scorers: one a view, local or remote.
    """
    cheap = [*relation_scorers, *feasibility_scorers(), *(load_class(path)() for path in config.extra_scorers)]
    names = {scorer.name for scorer in cheap}
    weights = dict(config.weights)
    first = Ensemble(
        cheap,
        weights={name: weight for name, weight in weights.items() if name in names},
        normalise=config.normalise,
        aggregate=config.aggregate,
        quorum=float(config.quorum),  # a share, also where a parameter file says 1
        timeout=config.timeout,
    )
    last = last_scorers(config)
    dear = {scorer.name for scorer, _ in last}
    seen_by = [seen for _, seen in last]
    stages: list[tuple[Ensemble, int | float | None]] = [(first, seen_by[0] if last else None)]
    for (scorer, _), keep in zip(last, [*seen_by[1:], None], strict=False):
        own = {name: weight for name, weight in weights.items() if name == scorer.name}
        if own and not own[scorer.name] > 0:
            raise ValueError(
                f"the weight of '{scorer.name}' is {own[scorer.name]:g}; allowed: > 0; to do without it, leave it out of last_stage"
            )
        stages.append((Ensemble([scorer], weights=own, quorum=1, timeout=config.timeout), keep))
    if unknown := set(weights) - names - dear:
        raise ValueError(f"weights for unknown scorers {sorted(unknown)}; the scorers are {sorted(names | dear)}")
    strategy = CrossEntropy(config.elite_fraction, config.smoothing, config.minimum_std, periods=(0.0, 0.0, 2 * math.pi))  # x, y, yaw
    stop = Stop(
        max_iterations=config.iterations,
        agreement=None if config.all_iterations else config.agreement,
        patience=None if config.all_iterations else 1,
        tolerance=config.gain,
        min_iterations=min(3, config.iterations),
    )
    return Consensus(generator, Cascade(stages), strategy, stop)


def build_policy(
    workcell: Workcell, views: Sequence[str], config: ManipulationConfig = ManipulationConfig(), segmenter: Segmenter | None = None
) -> ManipulationPolicy:
    """Everything in one process.

    Args:
        workcell: any world behind the protocol.
        views: names of the camera views that judge (one relation scorer each); perception uses all that the workcell delivers.
        segmenter: another text-conditioned segmenter than the embedded one.
    """
    vision = build_vision(segmenter)
    grounder = build_grounder(config.grounders, vision)
    scorers: list[RelationScorer] = [build_relation_scorer(view, config, vision, grounder) for view in views]
    judges: list[RelationJudge] = list(scorers)
    consensus = build_consensus(config, build_generator(config), scorers)
    return ManipulationPolicy(workcell, build_perception(workcell.limits, config, vision, grounder), consensus, judges, config.policy)
