"""A video of an episode for people: what each camera saw, which regions were meant, what was agreed upon, and what was predicted."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pcm_ros.tasks.manipulation.policy_events import Checked, Chosen, Event, Executed, Finished, Observed, Planning
from pcm_ros.tasks.manipulation.workcell import PickPlace, View
from pcm_ros.tasks.manipulation.world_model import WorldModel, world_model

Image = npt.NDArray[np.uint8]
log = logging.getLogger(__name__)

_COLORS = ((230, 60, 60), (60, 120, 240), (60, 190, 80), (240, 180, 40), (170, 80, 220), (40, 200, 210), (240, 120, 180), (140, 100, 60))
_PICK, _PLACE, _INK, _PAPER = (255, 230, 0), (0, 255, 120), (235, 235, 235), (28, 30, 36)
_HEADER = 64
_FPS = 12


def annotate(view: View, world: WorldModel, action: PickPlace | None = None, outline: int = 1) -> Image:
    """The view's image (H, W, 3) with the outlines and names of the perceived objects, and the action as an arrow from pick to place."""
    image = view.rgb.copy()
    labels = world.labels(view.name)
    for number, thing in enumerate(world.scene.objects):
        mask = (labels == number).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        color = _COLORS[number % len(_COLORS)]
        cv2.drawContours(image, contours, -1, color, outline)
        if mask.any():
            v, u = np.nonzero(mask)
            _text(image, thing.label, (int(u.min()), max(8, int(v.min()) - 3)), 0.32, color)
    if action is not None:
        draw_action(image, view, action)
    return image


def draw_action(image: Image, view: View, action: PickPlace) -> None:
    """Draw an action into an image of the view, in place: the fingers' line at pick and place, and an arrow between."""
    ends = []
    for position, yaw, color in ((action.pick_position, action.pick_yaw, _PICK), (action.place_position, action.place_yaw, _PLACE)):
        half = max(action.pick_width, 0.02) / 2 * np.array([np.cos(yaw), np.sin(yaw), 0.0])
        uv, depth = view.project(np.stack([position, position - half, position + half]))
        if (depth <= 0).any():
            return
        points = [(round(u), round(v)) for u, v in np.clip(uv, -1000, 3000)]
        cv2.line(image, points[1], points[2], color, 2, cv2.LINE_AA)
        ends.append(points[0])
    cv2.arrowedLine(image, ends[0], ends[1], (255, 255, 255), 1, cv2.LINE_AA, tipLength=0.08)


class EpisodeRecorder:
    """Writes the events of a policy run, and pictures in between, into one H.264 file.

    Use as a context manager: `record(event)` for each event; `picture(rgb)` for pictures of the motion.

    Args:
        path: of the .mp4 to write; folders are made.
        instruction: shown in the header.
    """

    def __init__(self, path: Path, instruction: str, columns: int = 3) -> None:
        self.path, self._instruction, self._columns = Path(path), instruction, columns
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: Any = None
        self._size: tuple[int, int] | None = None
        self._last: Image | None = None
        self._status = ""

    def __enter__(self) -> EpisodeRecorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def record(self, event: Event) -> None:
        """Add what an event shows."""
        if isinstance(event, Observed):
            world = WorldModel(event.scene, event.observation)
            self._show([annotate(v, world) for v in event.observation.views], [v.name for v in event.observation.views], "observed", 1.0)
        elif isinstance(event, Checked):
            self._status = f"{event.relation}: {'holds' if event.holds else 'does not hold'} (p = {event.probability:.2f})"
            self._repeat(0.6)
        elif isinstance(event, Planning):
            iteration = event.iteration
            self._status = f"iteration {iteration.index}: energy {iteration.leader_energy:.2f}, agreement {iteration.agreement:.2f}"
            world = world_model(event.context)
            self._show_proposals(event, world)
        elif isinstance(event, Chosen):
            world = world_model(event.context)
            views = event.context.observation.views
            pictures = []
            for view in views:
                predicted = world.predict_image(view.name, event.category, event.motion)
                draw_action(predicted, view, event.action)
                pictures.append(predicted)
            self._show(pictures, [f"{view.name} (predicted)" for view in views], f"chosen: {event.relation}", 2.0)
        elif isinstance(event, Executed):
            self._status = f"executed: {event.result.code.name} {event.result.message}"
            self._repeat(0.5)
        elif isinstance(event, Finished):
            self._status = f"{event.outcome.name}: {event.message}"
            self._repeat(2.0)

    def picture(self, rgb: Image) -> None:
        """Add one picture (H, W, 3) of the motion."""
        if self._size is not None:
            width, height = self._size
            body = cv2.resize(
                rgb, None, fx=(f := min(width / rgb.shape[1], (height - _HEADER) / rgb.shape[0])), fy=f, interpolation=cv2.INTER_AREA
            )
            canvas = np.full((height, width, 3), _PAPER, dtype=np.uint8)
            left = (width - body.shape[1]) // 2
            canvas[_HEADER : _HEADER + body.shape[0], left : left + body.shape[1]] = body
            self._write(self._headed(canvas), 1)

    def close(self) -> None:
        """Finish the file. Without any picture no file is written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # Drawing

    def _show_proposals(self, event: Planning, world: WorldModel) -> None:
        pictures = []
        batch, total = event.iteration.batch, event.iteration.table.total.numpy()
        best = np.argsort(total, kind="stable")[:40]
        best = best[np.isfinite(total[best])]
        for view in event.context.observation.views:
            image = annotate(view, world)
            if len(best):
                places = batch.extras["place"][best.tolist(), :3].numpy()
                uv, depth = view.project(places)
                for rank in range(len(best) - 1, -1, -1):
                    if depth[rank] > 0 and np.abs(uv[rank]).max() < 4000:
                        shade = int(255 * (1 - rank / max(len(best), 1)))
                        cv2.circle(image, (int(uv[rank, 0]), int(uv[rank, 1])), 2, (255 - shade // 2, shade, 60), -1, cv2.LINE_AA)
            pictures.append(image)
        self._show(pictures, [view.name for view in event.context.observation.views], None, 0.6)

    def _show(self, pictures: list[Image], names: list[str], status: str | None, seconds: float) -> None:
        if status is not None:
            self._status = status
        height = max(picture.shape[0] for picture in pictures)
        tiles = []
        for picture, name in zip(pictures, names, strict=True):
            scale = height / picture.shape[0]
            tile = cv2.resize(picture, None, fx=scale, fy=scale) if scale != 1 else picture.copy()
            _text(tile, name, (6, height - 8), 0.42, _INK)
            tiles.append(tile)
        width = max(tile.shape[1] for tile in tiles)
        columns = min(self._columns, len(tiles))
        rows = (len(tiles) + columns - 1) // columns
        canvas = np.full((rows * height + _HEADER, columns * width, 3), _PAPER, dtype=np.uint8)
        for number, tile in enumerate(tiles):
            top, left = _HEADER + number // columns * height, number % columns * width
            canvas[top : top + height, left : left + tile.shape[1]] = tile
        if self._size is None:
            self._size = (canvas.shape[1] // 2 * 2, canvas.shape[0] // 2 * 2)
        width, height = self._size
        fitted = np.full((height, width, 3), _PAPER, dtype=np.uint8)
        part = canvas[:height, :width]
        fitted[: part.shape[0], : part.shape[1]] = part
        self._last = fitted
        self._repeat(seconds)

    def _headed(self, canvas: Image) -> Image:
        canvas = canvas.copy()
        canvas[:_HEADER] = _PAPER
        _text(canvas, self._instruction, (10, 24), 0.55, _INK)
        _text(canvas, self._status[:150], (10, 50), 0.45, (150, 200, 255))
        return canvas

    def _repeat(self, seconds: float) -> None:
        if self._last is not None:
            self._write(self._headed(self._last), max(1, round(seconds * _FPS)))

    def _write(self, frame: Image, times: int) -> None:
        if self._writer is None:
            import imageio.v2 as imageio

            self._writer = imageio.get_writer(self.path, fps=_FPS, codec="libx264", macro_block_size=2, quality=7, ffmpeg_log_level="error")
        for _ in range(times):
            self._writer.append_data(frame)


def _text(image: Image, text: str, at: tuple[int, int], scale: float, color: tuple[int, int, int]) -> None:
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(image, plain, (at[0] + 1, at[1] + 1), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(image, plain, at, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
