"""The `pcm` command. Heavy packages are imported by the commands that need them, so that help answers at once."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from pcm_ros.benchmarks.commands import app as bench_app

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
app.add_typer(bench_app, name="bench")
EXAMPLE = "put the red mug to the left of the blue bowl"

Config = Annotated[Path | None, typer.Option("--config", help="Parameter file; default: config/manipulation.yaml of the package.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="Seed of the planner: the same seed on the same images gives the same actions.")
]


@app.callback()
def describe() -> None:
    """Pre-trained models that come to an agreement, and a robot that acts on it."""


def _fail(message: str, code: int = 2) -> None:
    from rich.console import Console

    Console(stderr=True, emoji=False).print("[bold red]error[/]:", message, highlight=False, markup=True, soft_wrap=True)
    raise typer.Exit(code)


@app.command(
    epilog=f'Examples: `pcm launch manipulation "instruction:={EXAMPLE}"`; `pcm launch manipulation` (waits for goals: `pcm send`); '
    "`pcm launch manipulation --arguments`; `pcm launch manipulation views:=front,top scene:=7`"
)
def launch(
    system: Annotated[str, typer.Argument(help="What to start: manipulation")],
    arguments: Annotated[list[str] | None, typer.Argument(help="name:=value, as for `ros2 launch`; see --arguments")] = None,
    show_arguments: Annotated[bool, typer.Option("--arguments", help="List the launch arguments and stop.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all that the nodes print, not only warnings and errors.")] = False,
) -> None:
    """Start a system as ROS 2 processes, send it an instruction, show each iteration. Exit code 0 only on success."""
    from rich.console import Console

    from pcm_ros import bringup

    console = Console(emoji=False)
    if show_arguments and system in bringup.SYSTEMS:
        for argument in bringup.SYSTEMS[system][0]:
            console.print(f"[bold]{argument.name}[/]:={argument.default}  {argument.description}", highlight=False)
        return
    try:
        parts = bringup.system(system, arguments or [])
    except bringup.LaunchError as error:
        _fail(str(error))
    from pcm_ros.console import launch as start

    raise typer.Exit(start(parts, verbose, console))


@app.command(epilog=f'Example: `pcm send "{EXAMPLE}"`')
def send(
    instruction: Annotated[str, typer.Argument(help="What the robot shall do.")],
    seed: Seed = 0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the system to answer.")] = 30.0,
) -> None:
    """Send an instruction to a running system and show each iteration. Exit code 0 only on success."""
    import os

    from rich.console import Console

    from pcm_ros import bringup

    os.environ.update(bringup.environment())
    from pcm_ros.client import ManipulationClient, NotAvailable
    from pcm_ros.console import INTERRUPTED, result_line, state_line, stop_on_signals

    console = Console(emoji=False)
    with stop_on_signals() as asked, ManipulationClient() as client:
        try:
            goal = client.start(instruction, seed, lambda state: console.print(state_line(state), highlight=False, soft_wrap=True), timeout)
            while not goal.done() and client.ready():
                if asked.wait(0.05):
                    goal.cancel()
                    break
            outcome = goal.result(15.0)
        except (NotAvailable, TimeoutError) as error:
            _fail(str(error), INTERRUPTED if asked.is_set() else 1)
        console.print(result_line(outcome.success, outcome.error, outcome.message), highlight=False)
        if outcome.video:
            console.print(f"video: {outcome.video}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if outcome.success else INTERRUPTED if asked.is_set() else 1)


@app.command(epilog=f'Examples: `pcm run "{EXAMPLE}"`; `pcm run "stack the green block on the red one" --scene 7 --actions plan.json`')
def run(
    instruction: Annotated[str, typer.Argument(help="What the robot shall do.")],
    seed: Seed = 0,
    scene: Annotated[int, typer.Option(min=0, help="Seed of the simulated scene.")] = 0,
    task: Annotated[str, typer.Option(help="What the simulated scene consists of: a task of the simulator.")] = "demo",
    views: Annotated[str, typer.Option(help="Cameras to use, separated by commas; empty: all.")] = "",
    config: Config = None,
    output: Annotated[Path, typer.Option(help="Folder for the video of the episode.")] = Path("runs"),
    video: Annotated[bool, typer.Option(help="Whether to make a video.")] = True,
    actions: Annotated[Path | None, typer.Option(help="Write the actions that were carried out to this JSON file.")] = None,
) -> None:
    """The same policy in one process with the simulator, without ROS. Exit code 0 only on success."""
    from rich.console import Console

    from pcm_ros import bringup
    from pcm_ros.benchmarks.manipulation import FewerViews
    from pcm_ros.configuration import manipulation_config_of
    from pcm_ros.console import INTERRUPTED, result_line, state_line, stop_on_signals
    from pcm_ros.models.loading import ModelUnavailable
    from pcm_ros.nodes.conversions import numbers_of
    from pcm_ros.nodes.feedback import state_message
    from pcm_ros.sim.workcell import SimWorkcell
    from pcm_ros.tasks.manipulation.assembly import build_policy
    from pcm_ros.tasks.manipulation.policy import Executed, Finished
    from pcm_ros.tasks.manipulation.recording import EpisodeRecorder

    console, done, end = Console(emoji=False), [], None
    try:
        settings = manipulation_config_of(config or bringup.folder("config") / "manipulation.yaml")
        cell = SimWorkcell(task, seed=scene)
        cameras = [camera.name for camera in cell.world.cameras]
        chosen = [view.strip() for view in views.split(",") if view.strip()] or cameras
        if unknown := set(chosen) - set(cameras):
            raise ValueError(f"--views names {sorted(unknown)}; the cameras are {cameras}")
        policy = build_policy(FewerViews(cell, chosen), chosen, settings)
    except (ValueError, KeyError, ModelUnavailable) as error:
        _fail(str(error))
    name = re.sub(r"[^a-z0-9]+", "-", instruction.lower()).strip("-")[:40] or "episode"
    recorder = EpisodeRecorder(output / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}.mp4", instruction[:200]) if video else None
    with stop_on_signals() as asked:
        for event in policy.run(instruction, seed, asked.is_set):
            if isinstance(event, Executed):
                done.append(numbers_of(event.action))
            if isinstance(event, Finished):
                end = event
            elif (state := state_message(event)) is not None:
                console.print(state_line(state), highlight=False, soft_wrap=True)
            if recorder is not None:
                recorder.record(event)
    cell.close()
    assert end is not None
    console.print(result_line(end.success, end.outcome.name, end.message), highlight=False)
    if recorder is not None:
        recorder.close()
        console.print(f"video: {recorder.path}" if recorder.path.exists() else "video: none", highlight=False, soft_wrap=True)
    if actions is not None:
        actions.parent.mkdir(parents=True, exist_ok=True)
        actions.write_text(json.dumps({"instruction": instruction, "seed": seed, "scene": scene, "actions": done}, indent=1))
    raise typer.Exit(0 if end.success else INTERRUPTED if asked.is_set() else 1)


@app.command(epilog="Example: `pcm models`")
def models() -> None:
    """List all models: role, source, licence, size, and whether their files are there and whole. Exit code 1 if one is not."""
    from rich.console import Console
    from rich.table import Table

    from pcm_ros.models.registry import registry

    table = Table("model", "role", "source", "licence", "MB", "state")
    broken = False
    for entry in registry().values():
        problems = entry.problems()
        broken |= bool(problems)
        state = "[red]" + "; ".join(problems) + "[/]" if problems else "[green]ok[/]"
        table.add_row(entry.name, entry.role, entry.source, entry.licence, f"{entry.size / 1e6:.1f}", state)
    Console(emoji=False).print(table)
    raise typer.Exit(1 if broken else 0)


@app.command(epilog="Example: `pcm doctor`")
def doctor() -> None:
    """Say what is missing on this machine, and the remedy. Exit code 1 if the main job cannot run."""
    from rich.console import Console

    from pcm_ros.doctor import examine

    console = Console(emoji=False)
    findings = examine()
    for finding in findings:
        mark = "[green]ok[/]     " if not finding.problem else "[red]missing[/]" if finding.fatal else "[yellow]warning[/]"
        console.print(f"{mark} [bold]{finding.name}[/]: {finding.problem or finding.state}", highlight=False, soft_wrap=True)
        if finding.problem:
            console.print(f"        remedy: {finding.remedy}", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if any(finding.problem and finding.fatal for finding in findings) else 0)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
