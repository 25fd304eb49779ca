"""How close predicted views are to what the cameras then see: one action a scene, chosen by the consensus and carried out.

The silhouettes of what the cameras see come from the simulator, for the comparison only; the prediction is made from images before the
action. Episodes whose action failed show nothing of the world model: they are counted, and left out of the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pcm_ros.benchmarks.manipulation import VIEW_ORDER
from pcm_ros.consensus import mixed_seed
from pcm_ros.evidence import Document, Estimate, mean, quantile, rate, run_bench
from pcm_ros.evidence.document import Record
from pcm_ros.sim.cameras import render
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import (
    ManipulationConfig,
    build_consensus,
    build_generator,
    build_grounder,
    build_perception,
    build_relation_scorer,
    build_vision,
)
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.instruction import parse
from pcm_ros.tasks.manipulation.policy_events import action_of
from pcm_ros.tasks.manipulation.predicted_view import predict_view
from pcm_ros.tasks.manipulation.world_model import world_model

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# An object that rose and then lies further than this from where it was let go has slipped or toppled: the grasp failed.
SLIPPED = 0.10
# Pixels around the silhouettes that belong to the changed region: shadows and edges.
AROUND = 3
SCALE, CAPTION = 2, 20  # of the pictures in the report; pixels


class _Prepared:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.workcell = SimWorkcell(config["suite"])
        self.views = VIEW_ORDER[: config["views"]]
        settings = ManipulationConfig()
        vision = build_vision()
        grounder = build_grounder(settings.grounders, vision)
        self.consensus = build_consensus(
            settings, build_generator(settings), [build_relation_scorer(view, settings, vision, grounder) for view in self.views]
        )
        self.perception = build_perception(self.workcell.limits, settings, vision, grounder)
        self.pictures = Path(config["pictures"])


def run_one(item: int, prepared: _Prepared) -> dict[str, Any]:
    """One scene: choose, predict, act, look."""
    cell = prepared.workcell
    episode = cell.reset(item)
    seen = cell.observe()
    observation = replace(seen, views=tuple(view for view in seen.views if view.name in prepared.views))
    scene = prepared.perception.perceive(observation)
    context = Context(parse(episode.instruction).relations[0], (), scene, observation)
    leader = prepared.consensus.run(context, mixed_seed(item, 0)).leader
    category, motion = int(leader.category[0]), leader.extras["motion"][0].numpy()
    world = world_model(context)
    predicted = {view.name: predict_view(world, view.name, category, motion) for view in observation.views}
    target = scene.objects[category].center + motion[:3]
    bodies = cell.world.bodies()
    moved = int(np.argmin([np.linalg.norm((body.low + body.high) / 2 - scene.objects[category].center) for body in bodies]))
    start = (bodies[moved].low + bodies[moved].high) / 2
    before = _silhouettes(cell, bodies[moved].number)
    result = cell.execute(action_of(leader))
    body = cell.world.bodies()[moved]
    error = (body.low + body.high) / 2 - target
    record: dict[str, Any] = {
        "instruction": episode.instruction,
        "object": body.spec.phrase,
        "outcome": result.code.name,
        "grasp_failed": bool(not result.ok or np.linalg.norm(error) > SLIPPED),
        "position_error": float(np.linalg.norm(error)),
        "position_error_xy": float(np.linalg.norm(error[:2])),
        "position_error_z": float(abs(error[2])),
        "motion_error": float(np.linalg.norm((body.low + body.high) / 2 - start - motion[:3])),
    }
    if record["grasp_failed"]:
        return record
    rows = []
    for camera in cell.world.cameras:
        if camera.name not in predicted:
            continue
        after, segmentation = render(cell.world.client, camera, cell.world.light)
        earlier, guess = world.view(camera.name).rgb, predicted[camera.name]
        true, mask = segmentation == body.number, guess.region(category)
        kernel = np.ones((2 * AROUND + 1, 2 * AROUND + 1), np.uint8)
        changed = cv2.dilate((true | mask | before[camera.name]).astype(np.uint8), kernel).astype(bool)
        record[f"psnr.{camera.name}"] = psnr(guess.rgb, after.rgb)
        record[f"psnr_changed.{camera.name}"] = psnr(guess.rgb[changed], after.rgb[changed])
        record[f"psnr_unmoved.{camera.name}"] = psnr(earlier[changed], after.rgb[changed])
        if true.any() or mask.any():
            record[f"iou.{camera.name}"] = float((true & mask).sum() / (true | mask).sum())
        rows.append(
            _row(earlier, guess.rgb, after.rgb, changed, f"{camera.name}: IoU {record.get(f'iou.{camera.name}', float('nan')):.2f}")
        )
    prepared.pictures.mkdir(parents=True, exist_ok=True)
    path = prepared.pictures / f"{item}.png"
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
    return {**record, "clip": str(path.resolve())}


def _silhouettes(cell: SimWorkcell, body: int) -> dict[str, Mask]:
    return {camera.name: render(cell.world.client, camera, cell.world.light)[1] == body for camera in cell.world.cameras}


def psnr(picture: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio in decibels of 8-bit pictures of any shape; at most 60 (equal pictures have none)."""
    error = float(np.mean((picture.astype(np.float64) - truth) ** 2))
    return min(60.0, 10 * float(np.log10(255**2 / max(error, 1e-9))))


def _row(before: Image, predicted: Image, seen: Image, changed: Mask, text: str) -> Image:
    """Before | predicted | seen, cut to what changed and some of its surroundings."""
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    height, width = changed.shape
    # All rows of a picture have the same size: the window is as large as the view allows around the changed part's middle.
    window = (height * 2 // 3, width * 2 // 3)
    top = int(np.clip((rows[0] + rows[-1]) // 2 - window[0] // 2, 0, height - window[0]))
    left = int(np.clip((columns[0] + columns[-1]) // 2 - window[1] // 2, 0, width - window[1]))
    part = np.s_[top : top + window[0], left : left + window[1]]
    pictures = []
    for picture, caption in ((before, f"before, {text}"), (predicted, "predicted"), (seen, "seen")):
        large = cv2.resize(np.ascontiguousarray(picture[part]), None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
        band = np.full((CAPTION, large.shape[1], 3), 255, np.uint8)
        cv2.putText(band, caption, (4, CAPTION - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        pictures.append(np.concatenate([band, large]))
    return np.asarray(np.concatenate(pictures, axis=1), dtype=np.uint8)


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Each figure over all views (a scene's views are averaged first: they are not independent), then by view."""
    good = [record for record in records if "error" not in record]
    carried = [record for record in good if not record["grasp_failed"]]
    results = {"grasp_failed": rate([bool(record["grasp_failed"]) for record in good])}
    if not carried:
        return results
    for name in ("position_error", "position_error_xy", "position_error_z", "motion_error"):
        values = [float(record[name]) for record in carried]
        results[name] = mean(values)
        results[f"{name}.p95"] = quantile(values, 0.95)
    for name in ("iou", "psnr", "psnr_changed", "psnr_unmoved"):
        by_scene = [[float(value) for key, value in record.items() if key.startswith(f"{name}.")] for record in carried]
        results[name] = mean([float(np.mean(values)) for values in by_scene if values])
        for view in VIEW_ORDER:
            values = [float(record[f"{name}.{view}"]) for record in carried if f"{name}.{view}" in record]
            if values:
                results[f"{name}.{view}"] = mean(values)
    return results


def bench(
    json_path: Path, *, suite: str = "relations-1", scenes: int = 20, views: int = 5, seed: int = 4000, jobs: int = 1, fresh: bool = False
) -> Document:
    """`scenes` scenes of a suite with `views` cameras. The pictures lie beside the JSON.

    Raises:
        ValueError: an argument out of its range.
    """
    if not 1 <= views <= len(VIEW_ORDER):
        raise ValueError(f"views is {views}; allowed: 1..{len(VIEW_ORDER)} ({', '.join(VIEW_ORDER)} in this order)")
    pictures = json_path.with_name(f"{json_path.stem}-pictures")
    config = {"suite": suite, "seed": seed, "views": views, "pictures": str(pictures)}
    items = {f"{suite}-{number}": number for number in range(seed, seed + scenes)}
    return run_bench("predicted-views", config, items, run_one, summarise, json_path, prepare=_Prepared, jobs=jobs, fresh=fresh)
