"""The image bench: what prompts ask, what the judge reads from renders, how pictures are compared, and a whole small run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pybullet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.benchmarks.image import as_png, bench, figures, frechet_distance, from_png, kernel_distance, summarise
from pcm_ros.benchmarks.picture_judge import JUDGE, PictureJudge
from pcm_ros.benchmarks.picture_prompts import CATEGORIES, Asked, ask, fulfilled, things_fulfilled
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.sim.pictures import KINDS, Placed, held_out, pictures, relation
from pcm_ros.tasks.image_generation import read_prompt


@given(st.integers(0, 2**31), st.integers(0, 1000))
def test_prompts_are_held_out_and_say_what_they_ask(seed: int, number: int) -> None:
    asked = ask(seed, number)
    assert asked == ask(seed, number)
    assert asked.category == CATEGORIES[number % 3]
    assert held_out(asked.things)
    read = read_prompt(asked.text)
    assert sorted(asked.things) == sorted(
        (color, kind) for name, count in zip(read.things, read.counts, strict=True) for color, kind in [name.split()] * count
    )
    assert [relation.word for relation in read.relations] == ([asked.how] if asked.how else [])


def test_a_prompt_is_fulfilled_by_its_things_where_they_were_asked_for_and_no_others() -> None:
    asked = Asked("a red mug to the left of a blue bowl", "relations", (("red", "mug"), ("blue", "bowl")), "left")
    mug, bowl = Placed("red", "mug", -0.1, 0.0), Placed("blue", "bowl", 0.1, 0.0)
    assert fulfilled(asked, [mug, bowl])
    assert fulfilled(asked, [bowl, mug])
    swapped = [Placed("blue", "mug", -0.1, 0.0), Placed("red", "bowl", 0.1, 0.0)]
    right = [Placed("red", "mug", 0.1, 0.0), Placed("blue", "bowl", -0.1, 0.0)]
    assert things_fulfilled(asked, right)
    for other in (swapped, right, [mug], [], [mug, bowl, Placed("red", "can", 0.0, 0.1)], [mug, bowl, mug]):
        assert not fulfilled(asked, other)


@given(st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)), min_size=2, max_size=2))
def test_relations_have_opposites(places: list[tuple[float, float]]) -> None:
    things = [Placed("red", "mug", *place) for place in places]
    opposite = {"left": "right", "right": "left", "front": "behind", "behind": "front", None: None}
    assert relation(1, 0, things) == opposite[relation(0, 1, things)]


def test_what_is_in_or_on_a_thing_is_nowhere_else() -> None:
    for kind, word in (("bowl", "in"), ("block", "on")):
        things = [Placed("red", "can", 0.0, 0.0, 1), Placed("blue", kind, 0.0, 0.0)]
        assert (relation(0, 1, things), relation(1, 0, things)) == (word, None)


@pytest.fixture(scope="module")
def renders() -> Iterator[tuple[np.ndarray, list[list[Placed]]]]:
    """Of held-out sets of things, from a seed that no training used."""
    client = pybullet.connect(pybullet.DIRECT)
    rows = [row for world in range(12) for row in pictures(client, 81_000, world, "test")]
    pybullet.disconnect(client)
    yield np.stack([rgb for rgb, _ in rows]), [things for _, things in rows]


def test_renders_are_held_out_and_repeatable(renders: tuple[np.ndarray, list[list[Placed]]]) -> None:
    rgb, things = renders
    assert rgb.shape == (288, 64, 64, 3)
    assert all(held_out([(thing.color, thing.kind) for thing in row]) and {thing.kind for thing in row} <= set(KINDS) for row in things)
    client = pybullet.connect(pybullet.DIRECT)
    again = next(iter(pictures(client, 81_000, 0, "test")))
    pybullet.disconnect(client)
    assert np.array_equal(again[0], rgb[0])
    assert again[1] == things[0]


def test_the_judge_reads_as_well_as_its_card_says(renders: tuple[np.ndarray, list[list[Placed]]]) -> None:
    rgb, things = renders
    promised = json.loads(JUDGE.with_name("picture-judge.card.json").read_text())["held_out"]
    judged = PictureJudge().judge(rgb)
    sets = [
        sorted((thing.color, thing.kind) for thing in found) == sorted((thing.color, thing.kind) for thing in real)
        for found, real in zip(judged, things, strict=True)
    ]
    assert np.mean(sets) > promised["sets"] - 3 * np.sqrt(0.05 / len(sets)), f"{np.mean(sets):.3f}"


def test_the_judge_refuses_other_weights(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"tower.0.weight": np.zeros((2, 2), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelUnavailable, match="is no judge"):
        PictureJudge(tmp_path / "other.safetensors")
    with pytest.raises(ModelUnavailable, match="does not exist"):
        PictureJudge(tmp_path / "nothing.safetensors")


def test_distances_are_least_between_alike_pictures() -> None:
    rng = np.random.default_rng(0)
    one, same, shifted = rng.normal(size=(200, 8)), rng.normal(size=(200, 8)), rng.normal(size=(200, 8)) + 0.7
    for distance in (kernel_distance, frechet_distance):
        assert distance(one, same) < 0.2 * distance(one, shifted)
    # two normal distributions: |difference of means|^2 + trace(S1 + S2 - 2 (S1 S2)^(1/2))
    cloud = rng.normal(size=(20_000, 2))
    assert frechet_distance(cloud, 3 * cloud + np.array([1.0, 0.0])) == pytest.approx(1 + 2 * (3 - 1) ** 2, rel=0.05)


def test_pictures_survive_their_way_through_records() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(from_png(as_png(image)), image)


def test_prompts_that_raised_are_not_fulfilled() -> None:
    made = {"fulfilled": True, "things": True, "seconds": 1.0, "expert_seconds": {}, "picture": as_png(np.zeros((64, 64, 3), np.uint8))}
    methods = {"guidance": {**made, "fulfilled": False}, "ensemble": made, "any": {"fulfilled": True}}
    records = [{"id": "a", "category": "pairs", "methods": methods}, {"id": "b", "error": "RuntimeError: out of memory"}]
    results = summarise(records)
    assert [(results[name].value, results[name].n) for name in ("ensemble", "any", "guidance")] == [(0.5, 2), (0.5, 2), (0.0, 2)]
    assert results["ensemble.minus.guidance"].value == 0.5
    assert results["ensemble.seconds"].n == 1


@pytest.mark.slow
def test_a_small_run_has_every_figure(tmp_path: Path) -> None:
    """One prompt by gradients, three in all; a second call measures nothing anew."""
    document = bench(tmp_path / "image.json", prompts=3, steps=8, count=2, gradient=1, guides=("segmenter", "classifier"))
    results = document.results
    for name in ("guidance", "ensemble", "equal-compute", "any", "expert.pcm-clip-towers", "gradient", "gradient.segmenter"):
        assert 0 <= results[name].value <= 1, name
    assert results["any"].value >= results["ensemble"].value
    for name in ("ensemble.minus.guidance", "ensemble.kid", "ensemble.fid", "gradient.seconds_per_step.segmenter", "guidance.seconds"):
        assert np.isfinite(results[name].value), name
    assert results["guidance"].n == 3
    records = document.records
    assert [len(from_png(record["methods"]["ensemble"]["picture"])) for record in records] == [64] * 3
    assert all(len(record["candidates"]) == 2 and record["candidates"][0]["energies"] for record in records)
    assert next(iter(figures(records).values())).startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": 1}, "prompts is 1; allowed: >= 2"),
        ({"experts": ()}, "experts are .*allowed: at least one of segmenter"),
        ({"guides": ("pcm-clip-colors",)}, "guides are .*allowed: at least one of segmenter"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench(tmp_path / "image.json", **arguments)  # type: ignore[arg-type]
