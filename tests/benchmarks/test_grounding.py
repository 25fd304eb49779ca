"""The grounding bench: what is asked about sizes, and a scene of the simulator looked at by the embedded experts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pcm_ros.benchmarks.grounding import SIZE_WORDS, bench, size_phrases, summarise, true_measure
from pcm_ros.sim.appearance import PROTOTYPES, Shade
from pcm_ros.sim.objects import ObjectSpec
from pcm_ros.tasks.manipulation.goal import Measure, size_word

RED, BLUE = (Shade(color, color, PROTOTYPES[color]) for color in ("red", "blue"))
FIRST, SECOND = ObjectSpec("can", RED, (0.030, 0.100)), ObjectSpec("can", BLUE, (0.024, 0.095))
BLOCK = ObjectSpec("block", RED, (0.030, 0.060, 0.040))


def test_only_clear_differences_of_one_kind_are_asked_for() -> None:
    """The cans differ by a quarter in width, and by a twentieth in height."""
    assert size_phrases([FIRST, BLOCK, SECOND]) == [("largest can", 0), ("smallest can", 2)]
    assert size_phrases([FIRST, BLOCK]) == []
    lower = replace(SECOND, dimensions=(0.030, 0.080))
    assert size_phrases([FIRST, lower]) == [("tallest can", 0), ("shortest can", 1)]
    third = replace(FIRST, dimensions=(0.030, 0.099))
    assert size_phrases([FIRST, lower, third]) == [("shortest can", 1)], "which one is the tallest is not clear"


def test_measures_by_truth() -> None:
    assert true_measure(BLOCK, Measure.LENGTH) == 0.060
    assert true_measure(BLOCK, Measure.HEIGHT) == 0.040
    assert true_measure(BLOCK, Measure.SIZE) == pytest.approx((0.03 * 0.06 * 0.04) ** (1 / 3))
    assert true_measure(FIRST, Measure.SIZE) == pytest.approx((0.06 * 0.06 * 0.1) ** (1 / 3))
    assert all(size_word(word) is not None for words in SIZE_WORDS.values() for word in words), "words that instructions may use"


def test_a_scene_is_asked_for_sizes(tmp_path: Path) -> None:
    """Two cans, the red one larger in every way: the experts name them, geometry compares them."""
    seed = 5002
    document = bench(tmp_path / "grounding.json", scenes=1, seed=seed, experts=("segmenter", "pcm-clip-towers"))
    (record,) = document.records
    assert record["size_phrases"] == ["largest can", "smallest can", "tallest can", "shortest can"]
    for name in ("segmenter", "pcm-clip-towers", "ensemble"):
        assert len(record[f"{name}.size_right"]) == len(record[f"{name}.size_probability"]) == 4
        assert document.results[f"{name}.size"].n == 4
    assert document.results["ensemble.size"].value == 1
    assert "ensemble.seen_pair" in document.results


def test_results_by_measure() -> None:
    base = {"matched": True, "phrases": ["red can"], "categories": ["seen_pair"], "accepted": [True], "ensemble.right": [True]}
    base |= {"ensemble.share": [0.9], "ensemble.log_odds": [3.0]}
    one = {**base, "size_phrases": ["largest can", "tallest can"], "ensemble.size_right": [True, False]}
    two = {**base, "size_phrases": ["smallest can"], "ensemble.size_right": [True]}
    results = summarise([one, two, {"error": "it fell over"}])
    assert (results["ensemble.size"].value, results["ensemble.size"].n) == (pytest.approx(2 / 3), 3)
    assert (results["ensemble.size.size"].value, results["ensemble.size.height"].value) == (1, 0)
    nothing = {"matched": False, "objects": 3, "perceived": 0}
    assert summarise([nothing, one, two])["ensemble.size"] == results["ensemble.size"]
