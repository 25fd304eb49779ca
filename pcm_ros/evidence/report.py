"""A self-contained HTML page from the JSON of a bench, and from nothing else."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pcm_ros.evidence.document import Document, Record, write_atomically
from pcm_ros.evidence.intervals import Estimate

VIDEOS = {".mp4": "video/mp4", ".webm": "video/webm"}
CLIP_TYPES = {**VIDEOS, ".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif"}
ROWS = 500
SUCCESSES = 3


def write_report(
    json_path: Path,
    html_path: Path,
    clip_limit: int = 12,
    clip_bytes: int = 30_000_000,
    figures: Callable[[Sequence[Record]], Mapping[str, str]] = lambda records: {},
    together: Sequence[str] = (),
) -> None:
    """Draw the page.

    It shows the command, the configuration, the machine, each result with its interval, the distribution of each number in the
    records, the records, and clips: a record may hold "clip", the path of a picture or video (mp4, webm, webp, png, jpg, gif)
    beside the JSON or absolute. Clips are embedded; those that are missing or over the limits are named instead. Where records say
    whether they were a "success", those that were not come first, and SUCCESSES of the others follow. A record may hold "failure", why
    it was not one: then those are listed.

    Args:
        json_path: what `run_bench` wrote. html_path: where the page goes.
        clip_limit, clip_bytes: how many clips, and how many bytes of clips together, are embedded at most.
        figures: draws further pictures from the records: title -> data URI.
        together: results whose names end with the same one of these share a plot (".difference"); others that are no rates get one each.

    Raises:
        ValueError: the JSON is not that of a bench.
    """
    import jinja2

    document = Document.load(Path(json_path))
    clips, left_out = _clips(document.records, Path(json_path).parent, clip_limit, clip_bytes)
    alike = [{name: e for name, e in document.results.items() if name.endswith(ending)} for ending in together]
    single = {name: e for name, e in document.results.items() if not any(name in group for group in alike)}
    rates = {name: e for name, e in single.items() if e.share}
    alike += [{name: e} for name, e in single.items() if name not in rates and math.isfinite(e.low)]
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = _shown
    page = environment.from_string(template).render(
        document=document,
        plots=[plot for plot in (_intervals(rates, (0, 1)), *(_intervals(group, None) for group in alike)) if plot],
        figures=figures(document.records),
        histograms=_histograms(document.records),
        columns=_columns(document.records),
        rows=document.records[:ROWS],
        failed=[record for record in document.records if "error" in record],
        clips=clips,
        failures=[record for record in document.records if record.get("failure")][:ROWS],
        left_out=left_out,
    )
    write_atomically(Path(html_path), page)


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "unknown"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return str(value)


def _columns(records: Sequence[Record]) -> list[str]:
    """Names of the scalar fields, in the order in which they occur."""
    names = {name: None for record in records for name, value in record.items() if isinstance(value, (str, bool, int, float, type(None)))}
    return [name for name in names if name not in ("error", "clip")]


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _clips(records: Sequence[Record], folder: Path, limit: int, most_bytes: int) -> tuple[list[dict[str, str]], list[str]]:
    """Embedded clips, and what was left out and why."""
    clips: list[dict[str, str]] = []
    left_out = []
    used = 0
    filmed = [record for record in records if record.get("clip")]
    good = [record for record in filmed if record.get("success") is True]
    if len(good) > SUCCESSES:
        left_out.append(f"{len(good) - SUCCESSES} of {len(good)} clips of successes")
    for record in [*(record for record in filmed if record.get("success") is not True), *good[:SUCCESSES]]:
        path = folder / str(record["clip"])
        kind = CLIP_TYPES.get(path.suffix.lower())
        if kind is None:
            left_out.append(f"{path.name}: not one of {', '.join(CLIP_TYPES)}")
        elif not path.is_file():
            left_out.append(f"{path.name}: not there")
        elif len(clips) >= limit or used + path.stat().st_size > most_bytes:
            left_out.append(f"{path.name}: over the limit of {limit} clips or {most_bytes} bytes")
        else:
            used += path.stat().st_size
            said = [str(record[name]) for name in ("failure", "instruction") if record.get(name)]
            caption = ": ".join([record["id"] + (", success" if record.get("success") is True else ""), *said])
            clips.append({"id": record["id"], "kind": kind, "uri": _data_uri(path.read_bytes(), kind), "caption": caption})
    return clips, left_out


def _picture(figure: Any) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return _data_uri(stream.getvalue(), "image/png")


def _intervals(results: Mapping[str, Estimate], limits: tuple[float, float] | None) -> str:
    """Point and whisker for each result; "" if there is none."""
    from matplotlib.figure import Figure

    known = {name: e for name, e in results.items() if math.isfinite(e.value)}
    if not known:
        return ""
    figure = Figure(figsize=(7, 0.6 + 0.32 * len(known)), layout="constrained")
    axes = figure.subplots()
    for row, e in enumerate(reversed(known.values())):
        if math.isfinite(e.low) and math.isfinite(e.high):
            axes.plot([e.low, e.high], [row, row], color="#4477aa", linewidth=3, alpha=0.5, solid_capstyle="butt")
        axes.plot([e.value], [row], "o", color="#223355")
    axes.set_yticks(range(len(known)), list(reversed(known)))
    axes.set_ylim(-0.6, len(known) - 0.4)
    if limits:
        axes.set_xlim(limits[0] - 0.02, limits[1] + 0.02)
    axes.grid(axis="x", alpha=0.3)
    return _picture(figure)


def _histograms(records: Sequence[Record], most: int = 12) -> dict[str, str]:
    """A histogram of each field that is a number with more than two values."""
    from matplotlib.figure import Figure

    pictures: dict[str, str] = {}
    for name in _columns(records):
        fields = [record.get(name) for record in records]
        values = [float(field) for field in fields if isinstance(field, (int, float)) and not isinstance(field, bool)]
        if len(set(values)) > 2 and len(pictures) < most:
            figure = Figure(figsize=(3.4, 2.1), layout="constrained")
            axes = figure.subplots()
            axes.hist(values, bins=min(30, max(5, int(len(values) ** 0.5))), color="#4477aa")
            axes.set_xlabel(name)
            pictures[name] = _picture(figure)
    return pictures
