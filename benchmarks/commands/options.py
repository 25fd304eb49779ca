"""What the commands of benches share: options, helps that ask the registries, and how a run ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pcm_ros.evidence import Estimate
    from pcm_ros.evidence.document import Record

Json = Annotated[
    Path | None, typer.Option("--json", help="Where the JSON goes; the report lies beside it (.html). Default: runs/NAME.json")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget the records of an unfinished run instead of going on with them.")]
Jobs = Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")]


class ListsSuites(TyperCommand):
    """Its help lists the registered tasks. They are asked for then only: the registry loads the simulator."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from pcm_ros.sim.benchmark_tasks import task_names

        names = ", ".join(task_names())
        for parameter in self.params:
            if parameter.name == "suite" and not parameter.help.endswith(names):  # type: ignore[attr-defined]
                parameter.help = f"{parameter.help} {names}"  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


class ListsAxes(ListsSuites):
    """Its help says in a line each what the axes of an ablation are."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from pcm_ros.benchmarks.ablation import AXES

        lines = [f"{name}: {axis.description}" for name, axis in AXES.items()]
        examples = (self.epilog or "").split("\n\n")[-2:]
        self.epilog = "\n\n".join(["Axes:", *lines, *examples])
        super().format_help(ctx, formatter)


@contextmanager
def reported(
    path: Path, figures: Callable[[Sequence[Record]], Mapping[str, str]] = lambda records: {}, together: Sequence[str] = ()
) -> Iterator[None]:
    """Around a run: what can't be done ends the command, what was done is shown, and the report is written beside its JSON `path`."""
    from rich.console import Console
    from rich.table import Table

    from pcm_ros.evidence import Document, write_report

    try:
        yield
        document = Document.load(path)
    except (ValueError, RuntimeError) as error:
        fail(error)
    except OSError as error:
        fail(ValueError(f"'{error.filename or path}': {error.strerror}; remedy: another --json file, or make room for it"))
    write_report(path, path.with_suffix(".html"), figures=figures, together=together)
    table = Table("result", "value", "95 % interval", "n", title=document.name)
    for name, estimate in document.results.items():
        table.add_row(name, f"{estimate.value:.4g}", interval(estimate), str(estimate.n))
    console = Console()
    console.print(table)
    console.print(f"written: {path}, {path.with_suffix('.html')}")


def interval(estimate: Estimate) -> str:
    """The 95 % interval, "-" where there is none."""
    return f"{estimate.low:.4g} .. {estimate.high:.4g}" if math.isfinite(estimate.low) else "-"


def fail(error: Exception) -> NoReturn:
    """End the command with code 2."""
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2)
