"""The benches on predicted views and on planning, on a scene of the simulator each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pcm_ros.benchmarks import planning, predicted_views
from pcm_ros.evidence import write_report

SEED = 4003


def test_a_prediction_is_nearer_to_what_is_seen_than_the_picture_before(tmp_path: Path) -> None:
    path = tmp_path / "views.json"
    document = predicted_views.bench(path, scenes=1, views=2, seed=SEED)
    record = document.records[0]
    assert "error" not in record and not record["grasp_failed"]
    for view in ("front", "left"):
        assert record[f"iou.{view}"] > 0.7
        assert record[f"psnr_changed.{view}"] > record[f"psnr_unmoved.{view}"] + 4.0
    assert record["motion_error"] < 0.015
    write_report(path, path.with_suffix(".html"))
    assert path.with_suffix(".html").read_text().count("data:image/png") > 1  # the pairs are in the report


def test_psnr_of_equal_and_of_opposite_pictures() -> None:
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert predicted_views.psnr(black, black) == 60.0
    assert predicted_views.psnr(black, white) == pytest.approx(0.0)


def test_where_the_time_goes_adds_up(tmp_path: Path) -> None:
    document = planning.bench(tmp_path / "planning.json", scenes=1, views=2, seed=SEED, configurations=("all", "cheap"))
    results = document.results
    assert "error" not in document.records[0]
    for name in ("all", "cheap"):
        assert sum(results[f"{name}.share.{part}"].value for part in planning.PARTS) == pytest.approx(1.0)
        assert results[f"{name}.processor_seconds.median"].value > 0
    assert "all.scorer_seconds.twin" in results and "cheap.scorer_seconds.twin" not in results


def test_arguments_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"allowed: 1\.\.5"):
        predicted_views.bench(tmp_path / "x.json", views=6)
    with pytest.raises(ValueError, match="allowed: all, pictures, cheap"):
        planning.bench(tmp_path / "x.json", configurations=("dear",))
