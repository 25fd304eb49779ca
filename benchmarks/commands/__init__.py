"""`pcm bench NAME`: the command line of the runners. Heavy imports wait until a bench runs."""

import typer

from pcm_ros.benchmarks.commands import comparison, manipulation, tasks

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Measure: each claim is a command that writes one JSON and one HTML report.")
for commands in (manipulation, tasks, comparison):
    app.add_typer(commands.app)
