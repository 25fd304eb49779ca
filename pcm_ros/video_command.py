"""What `pcm video` does and shows."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pcm_ros.consensus import QuorumError
from pcm_ros.console import INTERRUPTED, json_values, printable, stop_on_signals
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.sight.frames import Policy, UnusableClip, read_clip
from pcm_ros.tasks.video_qa import assembly
from pcm_ros.tasks.video_qa.answerer import Answer, Progress
from pcm_ros.tasks.video_qa.reading import UnusableQuestion, checked_question


@dataclasses.dataclass(frozen=True)
class Options:
    """As on the command line. scorers: names; empty = all."""

    frames: int = assembly.FRAMES
    policy: Policy = "uniform"
    seed: int = 0
    deadline: float | None = None
    scorers: tuple[str, ...] = ()
    model: Path | None = None
    strategy: assembly.Strategy = "words"


_SHOWN = 4  # answers in the table of energies, the chosen one first


class VideoError(ValueError):
    """The command can't do it. The message says why, and the remedy."""


def answer_and_show(path: Path, question: str, options: Options, as_json: bool = False) -> int:
    """Answer and print: the answer to stdout, progress to stderr.

    Returns:
        Exit code: 0 with an answer, 1 without one, 130 when interrupted.

    Raises:
        VideoError: an unusable clip or question, an option out of its range, or a model that can't be loaded.
    """
    progress = Console(stderr=True, emoji=False)
    found: Progress | Answer | None = None
    started = time.monotonic()
    try:
        checked_question(question)
        clip = read_clip(path, options.frames, options.policy)
        read = time.monotonic() - started
        with progress.status("loading models"):
            answerer = assembly.answerer(options.scorers or assembly.SCORERS, options.model, options.strategy)
        with stop_on_signals() as asked, progress.status("looking at the frames") as status:
            for found in answerer.iterate(clip, question, options.seed, options.deadline, stop=asked.is_set):
                if isinstance(found, Progress):
                    line = printable(f"{found.stage} {found.text}, {found.seconds:.1f} s")
                    status.update(Text(line[: max(20, progress.width - 4)]))
    except KeyboardInterrupt:  # while models were loading
        progress.print("interrupted")
        return INTERRUPTED
    except (UnusableClip, UnusableQuestion, ModelUnavailable, QuorumError, ValueError) as error:
        raise VideoError(str(error)) from error
    assert isinstance(found, Answer)
    if clip.problem:
        progress.print(Text(f"note: {clip.source}: {clip.problem}", "yellow"))
    if as_json:
        made = {**dataclasses.asdict(found), "clip": str(path), "frames_read": len(clip.frames), "reading_seconds": read}
        print(json.dumps(json_values(made), indent=1, ensure_ascii=False))
    else:
        show(found, Console(emoji=False, highlight=False))
    if found.reason == "cancelled":
        return INTERRUPTED
    return 0 if found.text else 1


def show(answer: Answer, console: Console) -> None:
    """An answer for people: energies by scorer, runners-up, frames, agreement."""
    why = "" if answer.complete else f" (partial: {answer.reason})"
    if answer.text:
        console.print(Text.assemble(("answer: ", "bold"), (printable(answer.text), "bold green"), why))
        shown = [(answer.text, answer.total, answer.energies)]
        shown += [(other.text, other.total, other.energies) for other in answer.runners_up[: _SHOWN - 1]]
        table = Table("expert", *(escape(printable(text)) for text, _, _ in shown), title="energies, lower is better", title_justify="left")
        for name in answer.energies:
            table.add_row(name, *(f"{energies[name]:.2f}" if name in energies else "-" for _, _, energies in shown))
        table.add_section()
        table.add_row("weighted sum", *(f"{total:.2f}" for _, total, _ in shown))
        console.print(table)
    else:
        console.print(Text.assemble(("no answer", "bold red"), why))
    if answer.frames:
        console.print("frames that carried it:", ", ".join(f"{answer.times[t]:.1f} s" for t in answer.frames))
    if answer.things:
        console.print(Text(f"seen: {', '.join(answer.things)}"))
    console.print(f"agreement of the scorers {answer.agreement:.2f}; {answer.seconds:.1f} s")
    for name, reason in answer.dropped.items():
        console.print(Text(f"left out: {name}: {printable(reason)}", "yellow"))
