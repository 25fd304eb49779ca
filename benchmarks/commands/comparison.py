"""Two runs of a bench against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcm_ros.benchmarks.commands.options import fail, interval

app = typer.Typer()


@app.command(epilog="Example: pcm bench compare runs/ensemble.json runs/segmenter.json --json runs/ensemble-segmenter.json")
def compare(
    first: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON of a run.")],
    second: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON of another run of the same suite and seeds.")],
    field: Annotated[str, typer.Option(help="What is compared: a field of the records that is true or false.")] = "success",
    json: Annotated[Path | None, typer.Option("--json", help="Write the comparison there as well.")] = None,
) -> None:
    """Two runs, paired by episode: difference with its interval, and the p-value of the exact McNemar test."""
    from rich.console import Console
    from rich.table import Table

    from pcm_ros.benchmarks.compare import compare as compared

    try:
        document, comparison = compared(first, second, field)
    except ValueError as error:
        fail(error)
    table = Table("", "value", "95 % interval", "n", title=f"{field}: {first} against {second}")
    for name in ("first", "second", "difference"):
        estimate = document.results[name]
        table.add_row(
            name, f"{estimate.value:+.4g}" if name == "difference" else f"{estimate.value:.4g}", interval(estimate), str(estimate.n)
        )
    console = Console()
    console.print(table)
    for name, value in document.config.items():
        if name.startswith("differs."):
            console.print(f"{name.removeprefix('differs.')}: {value[0]} | {value[1]}", highlight=False)
    alone = document.config["left_out"]
    if any(alone):
        console.print(f"records without a partner, left out: {alone[0]} of the first, {alone[1]} of the second")
    counts = f"only the first succeeds: {comparison.only_a}, only the second: {comparison.only_b}"
    console.print(f"{counts}, exact McNemar p = {comparison.p_value:.4g}", highlight=False)
    if json is not None:
        document.save(json)
        console.print(f"written: {json}")
