"""The harder suites: each measures what its name says, and a person could do what is asked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pcm_ros.sim.appearance import COLORS, called, lab, shades, unseen_shade
from pcm_ros.sim.benchmark_tasks import can_go_into, get_task
from pcm_ros.sim.episodes import Disturbance, Episode
from pcm_ros.sim.feasibility import find, room_for_gripper, stands
from pcm_ros.sim.impossible import REFUSALS
from pcm_ros.sim.objects import HELD_OUT_PAIRS, KINDS, ObjectSpec, sample_object
from pcm_ros.sim.suites import UNSEEN_SIZES, sample_unseen
from pcm_ros.sim.wording import COLOR_SYNONYMS, KIND_SYNONYMS, SENTENCES
from pcm_ros.sim.world import PANDA_LIMITS, Placement
from pcm_ros.tasks.manipulation.goal import RelationKind
from pcm_ros.tasks.manipulation.instruction import parse
from pcm_ros.tasks.manipulation.instruction_errors import InstructionError
from pcm_ros.tasks.manipulation.policy_events import Outcome
from training.lexicon import COLOR_WORDS, HELD_OUT_COLOR_WORDS, HELD_OUT_KIND_WORDS, KIND_WORDS
from training.render_scenes import sample_specs


def episodes(name: str, count: int, stream: int = 7) -> list[Episode]:
    return [get_task(name).sample(np.random.default_rng([seed, stream])) for seed in range(count)]


# words


def test_held_out_words_are_in_no_training_caption() -> None:
    captions = {word for words in (*KIND_WORDS.values(), *COLOR_WORDS.values()) for word in words}
    for synonyms, trained, held_out in (
        (KIND_SYNONYMS, KIND_WORDS, HELD_OUT_KIND_WORDS),
        (COLOR_SYNONYMS, COLOR_WORDS, HELD_OUT_COLOR_WORDS),
    ):
        for entry in synonyms:
            meaning = entry.kind if hasattr(entry, "kind") else entry.color
            if entry.held_out:
                assert entry.word in held_out[meaning]
                assert entry.word not in captions
            else:
                assert entry.word in trained[meaning]
                assert entry.word != meaning


def test_words_say_what_is_judged_in_other_words() -> None:
    found = episodes("words", 120)
    shapes = set()
    for episode in found:
        assert parse(episode.instruction).relations == episode.said
        assert episode.said != episode.relations
        used = str(episode.notes["words"]).split(", ")
        entries = [entry for entry in (*KIND_SYNONYMS, *COLOR_SYNONYMS) if entry.word in used]
        assert {entry.word for entry in entries} == set(used)
        assert {entry.held_out for entry in entries} == {episode.notes["held_out_words"]}
        text = episode.instruction
        for phrase in sorted({p for relation in episode.said for p in relation.phrases}, key=len, reverse=True):
            text = text.replace(phrase, "X")
        shapes.add(text)
    assert 0.3 < np.mean([bool(episode.notes["held_out_words"]) for episode in found]) < 0.7
    assert len(shapes) > len(SENTENCES)


def test_no_word_could_mean_another_object() -> None:
    """A person who looks for the phrase finds one object: of all of that kind, its shade is nearest to what the colour word means."""
    meaning = {entry.word: entry for entry in COLOR_SYNONYMS}
    also = {entry.word: entry.also for entry in KIND_SYNONYMS}
    for episode in episodes("words", 80, stream=8):
        specs = {placement.spec.phrase: placement.spec for placement in episode.placements}
        for phrase, spoken in episode.wording.items():
            spec = specs[phrase]
            for word in str(episode.notes["words"]).split(", "):
                if word in meaning and spoken.startswith(word):
                    rivals = [other for other in specs.values() if other.kind == spec.kind]
                    nearest = min(rivals, key=lambda other: float(np.linalg.norm(lab(meaning[word].rgb) - lab(other.shade.rgb))))
                    assert nearest is spec, (spoken, [other.phrase for other in rivals])
                if word in also and spoken.endswith(word):
                    assert not set(also[word]) & {other.kind for other in specs.values()}


# unseen


def test_pairs_that_training_left_out() -> None:
    """No training scene has one of them; the suite has them in most."""
    drawn = [(s.shade.name, s.kind) for seed in range(60) for s in sample_specs(np.random.default_rng(seed), "train")]
    assert len(drawn) > 150 and not set(drawn) & set(HELD_OUT_PAIRS)
    found = episodes("unseen", 60)
    assert np.mean([bool(episode.notes["held_out_pair"]) for episode in found]) > 0.5
    variants = Counter((p.spec.kind, p.spec.variant) for episode in found for p in episode.placements)
    assert set(variants) == set(UNSEEN_SIZES)


@pytest.mark.parametrize("color", COLORS)
def test_unseen_shades(color: str) -> None:
    rng = np.random.default_rng(3)
    training = np.stack([lab(shade.rgb) for shade in shades("train")[color]])
    drawn = [unseen_shade(rng, color) for _ in range(12)]
    distances = [float(np.linalg.norm(training - lab(shade.rgb), axis=1).min()) for shade in drawn]
    assert min(distances) > 1.0
    assert np.median(distances) > (3 if color in ("black", "white") else 6)
    if color not in ("black", "white", "cyan"):
        assert all(called(shade.rgb).get(color, 0) > 0.5 for shade in drawn)


def test_training_objects_have_no_variant() -> None:
    rng = np.random.default_rng(0)
    assert {sample_object(rng).variant for _ in range(200)} == {""}
    with pytest.raises(ValueError, match="allowed: '' ribbed, necked"):
        ObjectSpec("can", shades("test")["red"][0], (0.03, 0.08), variant="hexagonal")
    for kind in KINDS[:6]:
        spec = sample_unseen(rng, kind, "red")
        assert spec.phrase == f"red {kind}"


# clutter


def test_clutter_is_crowded_and_ambiguous_but_feasible() -> None:
    found = episodes("clutter", 25)
    kinds = Counter(episode.relations[0].kind for episode in found)
    assert len(kinds) >= 4
    for episode in found:
        assert 8 <= len(episode.placements) <= 10
        subject, reference = (episode.placements[find(episode.placements, phrase)] for phrase in episode.relations[0].phrases)
        specs = [placement.spec for placement in episode.placements]
        assert sum(spec.shade.name == subject.spec.shade.name for spec in specs) >= 3
        assert sum(spec.kind == subject.spec.kind for spec in specs) >= 3
        assert sum(spec.shade.name == reference.spec.shade.name for spec in specs) >= 2
        assert sum(spec.kind == reference.spec.kind for spec in specs) >= 2
        others = [placement for placement in episode.placements if placement is not subject]
        assert room_for_gripper(subject.spec, subject.xy, others, PANDA_LIMITS, subject.yaw)
    gaps = []
    for episode in found:
        for i, a in enumerate(episode.placements):
            nearest = min(
                float(np.hypot(a.xy[0] - b.xy[0], a.xy[1] - b.xy[1])) - a.spec.radius - b.spec.radius
                for j, b in enumerate(episode.placements)
                if i != j
            )
            gaps.append(nearest)
    assert min(gaps) >= 0.011
    assert np.median(gaps) < 0.03


def test_a_wall_of_tall_things_leaves_no_room_for_the_gripper() -> None:
    red = shades("test")["red"][0]
    block, bottle = ObjectSpec("block", red, (0.04, 0.04, 0.04)), ObjectSpec("bottle", red, (0.03, 0.17, 0.012))
    ring = [Placement(bottle, (0.5 + 0.075 * float(np.cos(t)), 0.075 * float(np.sin(t)))) for t in np.arange(6) * np.pi / 3]
    assert not room_for_gripper(block, (0.5, 0.0), ring, PANDA_LIMITS, yaw=0.3)
    assert room_for_gripper(block, (0.5, 0.0), ring[:1], PANDA_LIMITS, yaw=0.3)
    assert room_for_gripper(block, (0.5, 0.0), [], PANDA_LIMITS)


# disturbed


def test_disturbances_concern_what_matters() -> None:
    found = episodes("disturbed", 80)
    kinds = Counter(str(episode.notes["disturbance"]) for episode in found)
    assert set(kinds) == {"slip", "placed moved", "reference moved", "next moved"}
    assert {len(episode.relations) for episode in found} == {1, 2}
    for episode in found:
        planned = episode.disturbance
        assert planned is not None
        assert 1 <= planned.after <= len(episode.relations)
        assert not episode.refusal
        if planned.kind == "moved":
            assert any(planned.phrase in relation.phrases for relation in episode.relations)
    with pytest.raises(ValueError, match="allowed: moved, slip"):
        Disturbance("explosion", 1, "held")


# impossible


def test_refusals_are_outcomes_and_occur() -> None:
    found = episodes("impossible", 140)
    reasons = Counter(str(episode.notes["refusal_reason"]) for episode in found)
    assert set(reasons) == set(REFUSALS)
    for episode in found:
        assert episode.refusal in Outcome.__members__
        assert episode.refusal == REFUSALS[str(episode.notes["refusal_reason"])]
        assert episode.refusal not in ("SUCCESS", "CANCELED", "ERROR")


def test_what_is_impossible_is_so() -> None:
    for episode in episodes("impossible", 140, stream=9):
        reason = episode.notes["refusal_reason"]
        specs = {placement.spec.phrase: placement.spec for placement in episode.placements}
        if reason == "no_meaning":
            with pytest.raises(InstructionError):
                parse(episode.instruction)
            continue
        assert parse(episode.instruction).relations == episode.relations
        first = episode.relations[0]
        named = {phrase for relation in episode.relations for phrase in relation.phrases}
        if reason in ("absent_pair", "absent_kind"):
            (absent,) = named - set(specs)
            color, kind = absent.split()
            assert (kind in {spec.kind for spec in specs.values()}) == (reason == "absent_pair")
            assert reason == "absent_kind" or color in {spec.shade.name for spec in specs.values()}
            continue
        assert named <= set(specs)
        if reason == "contradiction":
            assert len(episode.relations) == 2
            rng = np.random.default_rng(1)
            for _ in range(50):  # wherever the two stand, not both hold
                placed = [Placement(specs[phrase], tuple(rng.uniform(0.3, 0.7, 2))) for phrase in first.phrases]
                on = [relation.kind == RelationKind.ON for relation in episode.relations]
                assert all(on) or not all(stands(placed, relation, PANDA_LIMITS) for relation in episode.relations)
        elif reason == "nothing_stands_on_it":
            assert specs[first.references[0]].kind in ("bottle", "duck")
        elif reason == "no_container":
            assert specs[first.references[0]].inner_radius == 0
        else:
            subject, container = specs[first.subject], specs[first.references[0]]
            assert not can_go_into(subject, container)
            assert subject.radius > container.inner_radius
