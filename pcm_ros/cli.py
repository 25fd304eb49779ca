"""The `pcm` command."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def describe() -> None:
    """Pre-trained models that come to an agreement, and a robot that acts on it."""


def main() -> None:
    app()
