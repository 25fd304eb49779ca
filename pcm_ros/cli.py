"""The `pcm` command. Heavy packages are imported by the commands that need them, so that help answers at once."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pcm_ros.benchmarks.commands import app as bench_app
from pcm_ros.command_options import listed

if TYPE_CHECKING:
    from pcm_ros.tasks.manipulation.workcell import View

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
app.add_typer(bench_app, name="bench")
EXAMPLE = "put the red mug to the left of the blue bowl"

Config = Annotated[Path | None, typer.Option("--config", help="Parameter file; default: config/manipulation.yaml of the package.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="Seed of the planner: the same seed on the same images gives the same actions.")
]

Instruction = Annotated[str, typer.Argument(help="What the robot shall do; left out where --picture shows it.", show_default=False)]
Picture = Annotated[
    Path | None,
    typer.Option("--picture", help="A picture of another scene, to be reproduced, in place of a sentence (.npz, see `pcm picture`)."),
]
Means = Annotated[
    list[str] | None,
    typer.Option("--means", help="'red mug=blue mug': who takes the part of the red mug in the picture. May be given several times."),
]


@app.callback()
def describe() -> None:
    """Pre-trained models that come to an agreement, and a robot that acts on it."""


def _fail(message: str, code: int = 2) -> NoReturn:
    from rich.console import Console
    from rich.markup import escape

    said = escape(message.encode(errors="replace").decode())  # names of files may hold what is no text
    Console(stderr=True, emoji=False).print("[bold red]error[/]:", said, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _shown(instruction: str, picture: Path | None, means: list[str] | None) -> tuple[View | None, dict[str, str]]:
    """The picture of the goal, or None where a sentence says it, and who is who. Ends the command unless exactly one is given."""
    from pcm_ros.picture_file import correspondence_of, load_picture

    if bool(instruction.strip()) == (picture is not None):
        _fail("exactly one of an instruction and --picture must be given: " + ("both are" if picture is not None else "neither is"))
    if means and picture is None:
        _fail("--means says who is who in a picture: it needs --picture")
    try:
        return (None, {}) if picture is None else (load_picture(picture), correspondence_of(means or []))
    except ValueError as error:
        _fail(str(error))


@app.command(
    epilog=f'Examples: `pcm launch manipulation "instruction:={EXAMPLE}"`; `pcm launch manipulation` (waits for goals: `pcm send`); '
    "`pcm launch manipulation --arguments`; `pcm launch manipulation views:=front,top scene:=7`; `pcm launch services`"
)
def launch(
    system: Annotated[str, typer.Argument(help="What to start: manipulation, services")],
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


@app.command(epilog=f'Examples: `pcm send "{EXAMPLE}"`; `pcm send --picture goal.npz --means "red mug=blue mug"`')
def send(
    instruction: Instruction = "",
    picture: Picture = None,
    means: Means = None,
    seed: Seed = 0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the system to answer.")] = 30.0,
    namespace: Annotated[str, typer.Option(help="ROS namespace of the system's nodes; empty: none.")] = "",
) -> None:
    """Send an instruction, or a picture of the goal, to a running system and show each iteration. Exit code 0 only on success."""
    import os

    from rich.console import Console

    from pcm_ros import bringup

    view, correspondence = _shown(instruction, picture, means)
    os.environ.update(bringup.environment())
    from pcm_ros.client import ManipulationClient, NotAvailable
    from pcm_ros.console import INTERRUPTED, ended_goal, result_line, state_line, stop_on_signals
    from pcm_ros.msg import ConsensusState

    console = Console(emoji=False)
    if complaint := bringup.namespace_complaint(namespace):
        _fail(f"--{complaint}")
    with stop_on_signals() as asked, ManipulationClient(namespace=namespace) as client:
        try:

            def show(state: ConsensusState) -> None:
                console.print(state_line(state), highlight=False, soft_wrap=True)

            goal = client.start(instruction, seed, show, timeout, view, correspondence, asked.is_set)
            outcome = ended_goal(goal, asked, console)
        except KeyboardInterrupt:
            _fail("interrupted before the goal was accepted: nothing was begun", INTERRUPTED)
        except (NotAvailable, TimeoutError) as error:
            _fail(str(error), INTERRUPTED if asked.is_set() else 1)
        console.print(result_line(outcome.success, outcome.error, outcome.message), highlight=False)
        if outcome.video:
            console.print(f"video: {outcome.video}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if outcome.success else INTERRUPTED if asked.is_set() else 1)


@app.command(
    epilog=f'Examples: `pcm run "{EXAMPLE}"`; `pcm run "stack the green block on the yellow one" --scene 7 --actions plan.json`; '
    "`pcm run --picture goal.npz --task image-goal --scene 7`"
)
def run(
    instruction: Instruction = "",
    picture: Picture = None,
    means: Means = None,
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
    from pcm_ros.nodes.feedback import read_message, state_message
    from pcm_ros.sim.workcell import SimWorkcell
    from pcm_ros.tasks.manipulation.assembly import build_goal_picture_reader, build_policy
    from pcm_ros.tasks.manipulation.goal import Goal
    from pcm_ros.tasks.manipulation.goal_picture import GoalPictureError
    from pcm_ros.tasks.manipulation.policy_events import Executed, Finished, Outcome
    from pcm_ros.tasks.manipulation.recording import EpisodeRecorder
    from pcm_ros.tasks.manipulation.workcell import InvalidObservation

    view, correspondence = _shown(instruction, picture, means)
    console, done, end = Console(emoji=False), [], None
    try:
        settings = manipulation_config_of(config or bringup.folder("config") / "manipulation.yaml")
        cell = SimWorkcell(task, seed=scene)
        cameras = [camera.name for camera in cell.world.cameras]
        chosen = list(listed(views)) or cameras
        if unknown := set(chosen) - set(cameras):
            raise ValueError(f"--views names {sorted(unknown)}; the cameras are {cameras}")
        workcell = FewerViews(cell, chosen)
        policy = build_policy(workcell, chosen, settings)
    except (ValueError, KeyError, TypeError, ModelUnavailable) as error:
        _fail(str(error))
    goal: str | Goal = instruction
    if view is not None:
        try:
            goal = build_goal_picture_reader(cell.limits, settings).read(view, correspondence, workcell.observe())
        except (GoalPictureError, InvalidObservation) as error:
            outcome = Outcome.INVALID_INSTRUCTION if isinstance(error, GoalPictureError) else Outcome.OBSERVATION
            console.print(result_line(False, outcome.name, str(error)), highlight=False)
            raise typer.Exit(1) from error
        instruction = goal.text
        console.print(state_line(read_message(goal)), highlight=False, soft_wrap=True)
    name = re.sub(r"[^a-z0-9]+", "-", instruction.lower()).strip("-")[:40] or "episode"
    try:
        if actions is not None:
            actions.parent.mkdir(parents=True, exist_ok=True)
            actions.touch()
        recorder = EpisodeRecorder(output / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}.mp4", instruction[:200]) if video else None
    except OSError as error:
        _fail(f"'{error.filename}' cannot be written: {error.strerror}; remedy: another --output or --actions")
    with stop_on_signals() as asked:
        for event in policy.run(goal, seed, asked.is_set):
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
        actions.write_text(json.dumps({"instruction": instruction, "seed": seed, "scene": scene, "actions": done}, indent=1))
    raise typer.Exit(0 if end.success else INTERRUPTED if asked.is_set() else 1)


@app.command(
    epilog="Example: `pcm picture --task image-goal --scene 7 --out goal.npz`, then the `pcm run --picture goal.npz ...` that it prints"
)
def picture(
    out: Annotated[Path, typer.Option(help="The file to write; a PNG to look at lies beside it.")] = Path("goal.npz"),
    scene: Annotated[int, typer.Option(min=0, help="Seed of the simulated scene.")] = 0,
    task: Annotated[str, typer.Option(help="A task of the simulator that shows its goals.")] = "image-goal",
) -> None:
    """Write the picture of the goal of a simulated episode, for `pcm run --picture` and `pcm send --picture`."""
    import cv2
    from rich.console import Console

    from pcm_ros.picture_file import save_picture
    from pcm_ros.sim.workcell import SimWorkcell

    if out.suffix != ".npz":
        _fail(f"--out is '{out}'; allowed: names that end in .npz (a PNG to look at is written beside it)")
    try:
        cell = SimWorkcell(task, seed=scene)
    except (ValueError, RuntimeError) as error:
        _fail(str(error))
    view, episode = cell.picture, cell.episode
    cell.close()
    if view is None:
        _fail(f"task '{task}' says its goals and shows no pictures; `image-goal` does")
    try:
        save_picture(out, view)
    except OSError as error:
        _fail(f"'{out}' cannot be written: {error.strerror}; remedy: another --out")
    look = out.with_suffix(".png")
    cv2.imwrite(str(look), view.rgb[..., ::-1])
    means = " ".join(f'--means "{pictured}={present}"' for pictured, present in episode.pictured.items())
    console = Console(emoji=False)
    console.print(f"written: {out}, {look}", highlight=False, soft_wrap=True)
    words = f"pcm run --picture {out} --task {task} --scene {scene} {means}".rstrip()
    console.print(f"try: {words}", highlight=False, soft_wrap=True, markup=False)


@app.command(
    epilog='Examples: `pcm maths "Tom has 3 boxes of 12 eggs and eats 4. How many are left?"`; '
    "`pcm maths --method majority --beam 4 --seed 7 - < question.txt`; `pcm maths --model qwen.gguf --deadline 60 --json '...'`"
)
def maths(
    question: Annotated[str, typer.Argument(help="A word problem, at most 4000 characters; - reads it from standard input.")],
    method: Annotated[
        str,
        typer.Option(help="consensus (beam search over steps, all scorers), greedy (likeliest steps), majority (of whole samples)."),
    ] = "consensus",
    beam: Annotated[int, typer.Option(min=1, max=64, help="Partial solutions kept in each round.")] = 5,
    proposals: Annotated[int, typer.Option(min=1, max=64, help="Steps drawn for each; beam * proposals at most 256.")] = 4,
    temperature: Annotated[float, typer.Option(help="Of the draws: 0.01 to 5.")] = 0.7,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same solution.")] = 0,
    deadline: Annotated[
        float | None, typer.Option(min=1e-6, help="Seconds, counted once the models are loaded; the best so far is then shown, marked.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens that all proposals together may cost. Default, or 0: 200 * beam * proposals, at least 4000."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Another language model: a GGUF file, or a folder with config.json and .safetensors.")
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Low-rank adapter (.safetensors) of the model. Default: the one that comes with the package, if it does; without any, the "
            "model works from worked examples, and the embedded one then solves few problems."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Solve a word problem: answer, steps, energies of each scorer, runners-up. Exit code 0 only with an answer."""
    from pcm_ros.maths_command import MathsError, Options, question_of, solve_and_show

    options = Options(method, beam, proposals, temperature, seed, deadline, max_tokens, model, adapter)
    try:
        code = solve_and_show(question_of(question), options, as_json)
    except MathsError as error:
        _fail(str(error))
    raise typer.Exit(code)


@app.command(
    epilog='Examples: `pcm video clip.mp4 "What colour is the mug that moves?"`; `pcm video clip.mp4 "Which object moves first?" '
    "--frames 24 --policy change`; `pcm video clip.mkv 'How many bowls are there?' --json`"
)
def video(
    clip: Annotated[Path, typer.Argument(help="A video file: mp4, mkv, webm, avi, gif, ...", show_default=False)],
    question: Annotated[str, typer.Argument(help="One question in English, at most 500 characters.", show_default=False)],
    frames: Annotated[int, typer.Option(min=1, max=64, help="Frames that are looked at.")] = 12,
    policy: Annotated[str, typer.Option(help="uniform (evenly in time) or change (more where more changes)")] = "uniform",
    seed: Seed = 0,
    deadline: Annotated[
        float | None, typer.Option(min=1e-6, help="Seconds, counted once the models are loaded; the best so far is then shown, marked.")
    ] = None,
    scorers: Annotated[
        str, typer.Option(help="Experts, separated by commas; empty: all. See `pcm bench video` for what each is worth.")
    ] = "",
    model: Annotated[Path | None, typer.Option(help="Another language model: a GGUF file, or a folder with .safetensors.")] = None,
    strategy: Annotated[
        str,
        typer.Option(help="words (answers are proposed and re-weighed) or gradient (one is written, gradients of experts lead; slower)"),
    ] = "words",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Answer a question about a clip: answer, energies of each scorer, runners-up, frames. Exit code 0 only with an answer."""
    from pcm_ros.video_command import Options, VideoError, answer_and_show

    chosen = listed(scorers)
    try:
        options = Options(frames, policy, seed, deadline, chosen, model, strategy)  # type: ignore[arg-type]
        code = answer_and_show(clip, question, options, as_json)
    except VideoError as error:
        _fail(str(error))
    raise typer.Exit(code)


@app.command(
    epilog='Examples: `pcm image "a red mug to the left of a blue bowl" --out mug.png`; '
    '`pcm image "a duck AND NOT a plate" --count 12`; `pcm image "a house" --model sd-folder --scheduler dpm-solver++`'
)
def image(
    prompt: Annotated[str, typer.Argument(help="At most 300 characters; AND and NOT in capitals join and exclude.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("picture.png"),
    method: Annotated[
        str,
        typer.Option(help="consensus (experts agree on one of --count), gradient (they guide each step), guidance (no experts)."),
    ] = "consensus",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same picture.")] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps, 2 to 250.")] = 40,
    count: Annotated[
        int | None, typer.Option(help="Pictures at once, of which the experts choose, 1 to 16; default: 8 for consensus, else 1.")
    ] = None,
    every: Annotated[bool, typer.Option("--every", help="Write the pictures that were not chosen too.")] = False,
    recurrences: Annotated[int, typer.Option(help="Each step so often, 1 to 8.")] = 1,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance, 0 to 100; 1 is none.")] = 4.0,
    height: Annotated[int | None, typer.Option(help="Pixels; default: the model's own size.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; default: the model's own size.")] = None,
    model: Annotated[Path | None, typer.Option(help="A folder in diffusers' format with safetensors; default: the embedded model.")] = None,
    scheduler: Annotated[str, typer.Option(help="ddim or dpm-solver++")] = "ddim",
    experts: Annotated[str, typer.Option(help="Experts on pictures, separated by commas; empty: all.")] = "",
    deadline: Annotated[float | None, typer.Option(min=1e-6, help="Seconds, counted once the models are loaded.")] = None,
    preview: Annotated[Path | None, typer.Option(help="A file that shows the predicted picture after each step.")] = None,
    scale: Annotated[int, typer.Option(min=1, max=16, help="Side of a painted pixel in the files.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Paint a prompt by consensus of a diffusion model and experts on pictures. Exit code 0 only with a finished picture."""
    from pcm_ros.image_command import Options, paint_and_show
    from pcm_ros.tasks.image_generation import Request
    from pcm_ros.tasks.image_generation.assembly import count_of

    chosen = listed(experts)
    try:
        request = Request(prompt, seed, steps, count_of(method) if count is None else count, recurrences, guidance, height, width)
        options = Options(method, model, scheduler, chosen, deadline, preview, scale, every)  # type: ignore[arg-type]
        code = paint_and_show(request, out, options, as_json)
    except ValueError as error:  # of the request, or an ImageError
        _fail(str(error))
    raise typer.Exit(code)


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
    """Entry point. Exit code 130 after Ctrl-C, wherever it met the command."""
    from pcm_ros.console import INTERRUPTED, remember_interrupts, was_interrupted

    remember_interrupts()
    try:
        app()
    except (Exception, SystemExit) as error:
        # Typer makes 1 of an interrupt that no command caught, extensions an ImportError of one that met them while they were loading.
        if was_interrupted() and (not isinstance(error, SystemExit) or error.code == 1):
            sys.exit(INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
