"""One view's energy: low where the right object goes to the right place, and honest about what the view does not show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from threading import BoundedSemaphore

import numpy as np
import pytest
import torch
from synthetic_scenes import BLUE, GREEN, RED, box, cup, observation, scene
from torch import Tensor

from pcm_ros.consensus import Batch
from pcm_ros.tasks.manipulation import relation_scorer
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.goal import NounPhrase, Relation, RelationKind
from pcm_ros.tasks.manipulation.grounding import Region
from pcm_ros.tasks.manipulation.relation_scorer import (
    CLEAR,
    CONTRAST,
    DOUBTFUL,
    LENIENCE,
    PRESENT,
    Assessment,
    RelationScorer,
    among_extremes,
    fit_logit,
    fit_probability,
    fused_logits,
    noun_probabilities,
    probability_of,
)
from pcm_ros.tasks.manipulation.workcell import Observation
from pcm_ros.tasks.manipulation.world_model import world_model

SHAPES = (
    box(0.45, -0.2, (0.05, 0.05, 0.05), RED),
    cup(0.55, 0.15, 0.07, 0.05, BLUE, flare=0.6),
    box(0.65, -0.1, (0.05, 0.05, 0.05), GREEN),
)
RED_BLOCK, BLUE_BOWL, GREEN_BLOCK = 0, 1, 2
VIEWS = ("front", "left", "right", "top", "robot")


class ColorGrounder:
    """5 where the region has the colour that the phrase names, -5 elsewhere."""

    name = "color"

    def __init__(self) -> None:
        self.asked = 0

    def logits(self, rgb: np.ndarray, regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        self.asked += 1
        channel = {"red": 0, "green": 1, "blue": 2}
        brightest = [int(rgb[region.mask].mean(axis=0).argmax()) for region in regions]
        return torch.tensor([[5.0 if channel.get(p.split()[0]) == b else -5.0 for p in phrases] for b in brightest]).reshape(
            len(regions), len(phrases)
        )


def context(kind: RelationKind, *phrases: str, held: tuple[Relation, ...] = ()) -> Context:
    return Context(Relation(kind, phrases[0], phrases[1:]), held, scene(*SHAPES), observation(*SHAPES))


def batch_of(given: Context, *targets: tuple[int, float, float]) -> Batch:
    category = torch.tensor([target[0] for target in targets])
    parameters = torch.tensor([[x, y, 0.0] for _, x, y in targets], dtype=torch.float64)
    return Batch(parameters, category, {"motion": world_model(given).motions(category, parameters)})


# Places for the red block, seen from the robot's base: +y is left, +x is behind.
PLACES = {
    RelationKind.LEFT_OF: (0.55, 0.29),
    RelationKind.RIGHT_OF: (0.55, 0.0),
    RelationKind.BEHIND: (0.70, 0.15),
    RelationKind.IN_FRONT_OF: (0.40, 0.15),
    RelationKind.IN: (0.55, 0.15),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", PLACES)
def test_the_right_object_in_the_right_place_is_best(kind: RelationKind, view: str) -> None:
    given = context(kind, "red block", "blue bowl")
    right = PLACES[kind]
    others = [place for other, place in PLACES.items() if other != kind]
    batch = batch_of(given, (RED_BLOCK, *right), (GREEN_BLOCK, *right), *((RED_BLOCK, *place) for place in others))
    energy = RelationScorer(view, ColorGrounder()).energy(batch, given)
    assert energy.shape == (6,)
    assert energy.dtype == torch.float64
    assert bool(torch.isfinite(energy).all())
    assert int(energy.argmin()) == 0
    assert float(energy[0]) < 1.5
    assert float(energy[1:].min()) > float(energy[0]) + 1.5


def test_between() -> None:
    given = context(RelationKind.BETWEEN, "red block", "blue bowl", "green block")
    batch = batch_of(given, (RED_BLOCK, 0.61, 0.01), (RED_BLOCK, 0.45, 0.15), (RED_BLOCK, 0.40, -0.25), (GREEN_BLOCK, 0.5, -0.02))
    for view in VIEWS:
        energy = RelationScorer(view, ColorGrounder()).energy(batch, given)
        assert int(energy.argmin()) == 0
        assert float(energy[1:].min()) > float(energy[0]) + 1.0


def test_a_proposal_scores_the_same_in_any_company() -> None:
    given = context(RelationKind.LEFT_OF, "red block", "blue bowl")
    rng = np.random.default_rng(0)
    targets = [(int(rng.integers(3)), float(rng.uniform(0.4, 0.7)), float(rng.uniform(-0.3, 0.3))) for _ in range(40)]
    scorer = RelationScorer("front", ColorGrounder())
    together = scorer.energy(batch_of(given, *targets), given)
    assert torch.equal(scorer.energy(batch_of(given, *targets), given), together)
    for number in (0, 7, 39):
        assert torch.allclose(scorer.energy(batch_of(given, targets[number]), given), together[number : number + 1], atol=1e-6)


def test_held_relations_must_stay() -> None:
    """The red block left of the green one holds; moving the green one to the left of the bowl would end it."""
    holds = Relation(RelationKind.IN_FRONT_OF, "red block", ("green block",))
    free, bound = (context(RelationKind.LEFT_OF, "green block", "blue bowl", held=held) for held in ((), (holds,)))
    target = (GREEN_BLOCK, 0.40, 0.33)
    scorer = RelationScorer("top", ColorGrounder())
    assert float(scorer.energy(batch_of(bound, target), bound)[0]) > float(scorer.energy(batch_of(free, target), free)[0]) + 2


def test_images_are_grounded_once_a_scene() -> None:
    given = context(RelationKind.LEFT_OF, "red block", "blue bowl")
    grounder = ColorGrounder()
    scorer = RelationScorer("front", grounder)
    for _ in range(3):
        scorer.energy(batch_of(given, (0, 0.5, 0.0)), given)
    scorer.assess(given)
    assert grounder.asked == 1


def test_how_things_are() -> None:
    for kind, truth in ((RelationKind.RIGHT_OF, True), (RelationKind.LEFT_OF, False), (RelationKind.IN, False)):
        given = context(kind, "red block", "blue bowl")
        assessments = [RelationScorer(view, ColorGrounder()).assess(given) for view in VIEWS]
        logits = fused_logits(assessments)
        probability = probability_of(assessments, logits, given.relation, given.scene)
        assert (probability > 0.8) if truth else (probability < 0.1), kind
        assert logits.argmax(dim=0).tolist() == [RED_BLOCK, BLUE_BOWL]


def test_the_other_one_is_another_one() -> None:
    given = context(RelationKind.LEFT_OF, "other red block", "red block")
    assessments = [RelationScorer(view, ColorGrounder()).assess(given) for view in VIEWS]
    probability = probability_of(assessments, fused_logits(assessments), given.relation, given.scene)
    assert probability < 0.5  # there is one red block only


@pytest.mark.parametrize(("subject", "reference"), [("red block", "blue bowl"), ("red block", "red bowl")])
def test_any_of_those_that_are_alike_will_do(subject: str, reference: str) -> None:
    blocks = [box(x, y, (0.04, 0.04, 0.04), RED) for x, y in ((0.4, -0.3), (0.4, -0.2), (0.4, -0.1), (0.55, 0.15))]
    bowls = [cup(0.55, y, 0.07, 0.05, BLUE if "blue" in reference else RED, flare=0.6) for y in (0.15, -0.2)]
    shapes = (*blocks, *(bowls[:1] if "blue" in reference else bowls))
    relation = Relation(RelationKind.IN, subject, (reference,))
    logits = torch.full((len(shapes), 2), -5.0, dtype=torch.float64)
    logits[:4, 0], logits[4:, 1] = 5.0, 5.0
    margins = torch.full((len(shapes), len(shapes)), -5.0, dtype=torch.float64)
    margins[3, 4] = 5.0
    margins.fill_diagonal_(-torch.inf)
    assert probability_of([Assessment("front", logits, margins)], logits, relation, scene(*shapes)) > 0.95
    margins[3, 4] = -5.0
    assert probability_of([Assessment("front", logits, margins)], logits, relation, scene(*shapes)) < 0.05
    logits[3, 0], margins[3, 4] = 3.0, 5.0  # rather not a red block
    assert probability_of([Assessment("front", logits, margins)], logits, relation, scene(*shapes)) < 0.1


def test_a_view_that_is_not_there() -> None:
    given = context(RelationKind.LEFT_OF, "red block", "blue bowl")
    alone = replace(given, observation=Observation(given.observation.views[:1]))
    with pytest.raises(KeyError, match="no view 'top'"):
        RelationScorer("top", ColorGrounder()).assess(alone)


def test_an_empty_table() -> None:
    empty = Context(Relation(RelationKind.LEFT_OF, "red block", ("blue bowl",)), (), scene(), observation())
    assessment = RelationScorer("front", ColorGrounder()).assess(empty)
    assert assessment.logits.shape == (0, 2)
    assert probability_of([assessment], fused_logits([assessment]), empty.relation, empty.scene) == 0


def test_views_that_hang_do_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = BoundedSemaphore(2)
    turns.acquire()
    turns.acquire()  # by two that never come back
    monkeypatch.setattr(relation_scorer, "_turns", turns)
    monkeypatch.setattr(relation_scorer, "_PATIENCE", 0.05)
    given = context(RelationKind.LEFT_OF, "red block", "blue bowl")
    assert torch.isfinite(RelationScorer("front", ColorGrounder()).energy(batch_of(given, (RED_BLOCK, 0.55, 0.29)), given)).all()


def test_a_late_answer_does_not_reach_the_next_scene() -> None:
    """A call about an earlier scene that comes back after the next scene was looked at."""
    relation = Relation(RelationKind.LEFT_OF, "red block", ("blue block",))
    first, second = ((RED, BLUE), (BLUE, RED))
    contexts = []
    for left, right in (first, second):
        shapes = (box(0.5, 0.15, (0.05, 0.05, 0.05), left), box(0.5, -0.15, (0.05, 0.05, 0.05), right))
        contexts.append(Context(relation, (), scene(*shapes), observation(*shapes)))
    late, scorer = contexts[0], None

    class Meanwhile(ColorGrounder):
        def logits(self, rgb: np.ndarray, regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
            found = super().logits(rgb, regions, phrases)
            if self.asked == 1:
                assert scorer is not None
                scorer.assess(contexts[1])
            return found

    scorer = RelationScorer("front", Meanwhile())
    scorer.assess(late)
    assert torch.equal(scorer.assess(contexts[1]).logits, RelationScorer("front", ColorGrounder()).assess(contexts[1]).logits)
    assert torch.equal(scorer.assess(late).logits, RelationScorer("front", ColorGrounder()).assess(late).logits)


def test_views_that_do_not_see_an_object_have_no_say_on_it() -> None:
    margins = torch.full((2, 2), 3.0, dtype=torch.float64)
    sees = Assessment("a", torch.tensor([[2.0, -1.0], [0.0, 4.0]], dtype=torch.float64), margins)
    blind = Assessment("b", torch.tensor([[math.nan, math.nan], [2.0, 0.0]], dtype=torch.float64), margins)
    assert fused_logits([sees, blind]).tolist() == [[2.0, -1.0], [1.0, 2.0]]
    assert fused_logits([blind])[0].tolist() == [-3.0, -3.0]


# Several objects, sizes, others

CROWD = (
    box(0.40, -0.25, (0.040, 0.040, 0.04), RED),
    box(0.50, -0.25, (0.055, 0.055, 0.05), RED),
    box(0.60, -0.25, (0.040, 0.040, 0.065), RED),
    cup(0.55, 0.15, 0.09, 0.05, BLUE, flare=0.6),
    box(0.65, -0.05, (0.06, 0.06, 0.06), GREEN),
)
SMALL, LARGE, TALL, BOWL, GREEN_ONE = range(5)


def crowd(subject: str, kind: RelationKind = RelationKind.LEFT_OF, reference: str = "blue bowl", shapes: Sequence = CROWD) -> Context:
    return Context(Relation(kind, subject, (reference,)), (), scene(*shapes), observation(*shapes))


def meant(subject: str) -> list[float]:
    given = crowd(subject)
    logits = fused_logits([RelationScorer(view, ColorGrounder()).assess(given) for view in VIEWS])
    return noun_probabilities(given.relation, logits, given.scene)[:, 0].tolist()


@pytest.mark.parametrize(
    ("phrase", "number"),
    [
        ("smallest red block", SMALL),
        ("large red block", LARGE),
        ("tallest red block", TALL),
        ("shorter red block", SMALL),
        ("longest red block", LARGE),
        ("largest object", BOWL),
    ],
)
def test_sizes_are_compared_among_what_fits(phrase: str, number: int) -> None:
    probability = meant(phrase)
    assert int(np.argmax(probability)) == number
    assert probability[number] > 0.6
    assert sum(probability) == pytest.approx(1)


def test_two_of_a_size() -> None:
    probability = meant("two largest red blocks")
    assert min(probability[LARGE], probability[TALL]) > 0.8
    assert max(probability[SMALL], probability[BOWL], probability[GREEN_ONE]) < 0.2


def test_all_of_a_kind() -> None:
    probability = meant("all red blocks")
    assert min(probability[:3]) > 0.9
    assert max(probability[3:]) < 0.1


def test_other_than() -> None:
    probability = meant("red block other than largest red block")
    assert probability[LARGE] < 0.15
    assert min(probability[SMALL], probability[TALL]) > 0.3


def test_what_others_are_placed_by_is_none_of_them() -> None:
    given = crowd("all red blocks", reference="largest red block")
    logits = fused_logits([RelationScorer(view, ColorGrounder()).assess(given) for view in VIEWS])
    probability = noun_probabilities(given.relation, logits, given.scene)
    assert float(probability[LARGE, 0]) < 0.2
    assert float(probability[[SMALL, TALL], 0].min()) > 0.7


@pytest.mark.parametrize("view", VIEWS)
def test_the_next_of_several(view: str) -> None:
    """The small block stands left of the bowl already: another red one is next; what stands there stays."""
    shapes = (box(0.55, 0.33, (0.04, 0.04, 0.04), RED), *CROWD[1:])
    place, elsewhere = (0.50, 0.32), (0.40, 0.0)
    for subject in ("all red blocks", "two red blocks"):
        given = crowd(subject, shapes=shapes)
        targets = [(LARGE, *place), (TALL, *place), (SMALL, *elsewhere), (GREEN_ONE, *place), (LARGE, *elsewhere), (SMALL, 0.60, 0.33)]
        energy = RelationScorer(view, ColorGrounder()).energy(batch_of(given, *targets), given)
        assert float(energy[:2].max()) < 1.8
        assert float(energy[2:].min()) > float(energy[:2].max()) + 1.0
        # Held, it forbids to take away what is there, and nothing else.
        other = Relation(RelationKind.BEHIND, "green block", ("blue bowl",))
        held = replace(given, relation=other, held=(given.relation,))
        free = replace(held, held=())
        scorer = RelationScorer(view, ColorGrounder())
        extra = scorer.energy(batch_of(held, *targets), held) - scorer.energy(batch_of(free, *targets), free)
        assert float(extra[2]) > 1.0
        assert float(extra[[0, 1, 4]].max()) < 0.3


def test_how_many_there_are() -> None:
    places = [(0.52, 0.36), (0.58, 0.31), (0.45, -0.1)]
    shapes = (*(box(x, y, (0.04, 0.04, 0.04), RED) for x, y in places), *CROWD[3:])
    truth = {
        "all red blocks": False,
        "two red blocks": True,
        "three red blocks": False,
        "both green blocks": False,
        "all green blocks": False,
    }
    for subject, holds in truth.items():
        given = crowd(subject, shapes=shapes)
        assessments = [RelationScorer(view, ColorGrounder()).assess(given) for view in VIEWS]
        probability = probability_of(assessments, fused_logits(assessments), given.relation, given.scene)
        assert (probability > 0.6) if holds else (probability < 0.1), subject


def test_more_than_there_are() -> None:
    given = crowd("seven red blocks")
    assessments = [RelationScorer(view, ColorGrounder()).assess(given) for view in VIEWS]
    assert probability_of(assessments, fused_logits(assessments), given.relation, given.scene) == 0


def test_among_extremes_counts() -> None:
    """One of two that are alike is the largest; of the three largest of three, every one is."""
    given = scene(*(box(0.4 + 0.1 * n, 0, (size,) * 3, RED) for n, size in enumerate((0.04, 0.04, 0.06))))
    fitting = torch.ones(3, dtype=torch.float64)
    largest = among_extremes(fitting, NounPhrase.read("largest block"), given)
    smallest = among_extremes(fitting, NounPhrase.read("smallest block"), given)
    assert float(largest[2]) > 0.9
    assert float(largest[:2].max()) < 0.1
    assert smallest[:2].tolist() == pytest.approx([0.5, 0.5], abs=0.2)
    assert among_extremes(fitting, NounPhrase.read("three largest blocks"), given).tolist() == pytest.approx([1, 1, 1])
    alone = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert float(among_extremes(alone, NounPhrase.read("largest block"), given)[0]) == pytest.approx(1)


def test_fit_is_judged_against_perceptions_own_name() -> None:
    thing = scene(*CROWD[:1]).objects[0]
    named = replace(scene(), objects=(replace(thing, label_confidence=0.0), replace(thing, label_confidence=0.99)))
    unsure, sure = fit_probability(torch.tensor([0.0, 0.0], dtype=torch.float64), named).tolist()
    assert unsure > 0.7
    assert sure < 0.4


def test_what_clearly_fits_is_there_whatever_else_it_is_called() -> None:
    assert fit_logit(0.0, 0.99) < 0 < fit_logit(CLEAR + 0.1, 0.99)
    assert fit_logit(CLEAR - 0.1, 0.99) < 0
    assert fit_logit(2.0, 0.99, present=3.0) < 0, "who asks for more than CLEAR gets it"
    assert fit_logit(-2.0, 0.5) > 0 > fit_logit(-3.5, 0.0)


def test_what_is_like_nothing_known_is_not_refused_for_its_odd_name() -> None:
    doubtful, sure = 1 / (1 + math.exp(-0.5 * DOUBTFUL)), 1 / (1 + math.exp(-1.5 * DOUBTFUL))
    logit = 0.5 * DOUBTFUL - CONTRAST - 0.5 * LENIENCE
    assert fit_logit(logit, doubtful) > 0 > fit_logit(logit + DOUBTFUL, sure)
    assert fit_logit(PRESENT - 1.1 * LENIENCE, doubtful) < 0
