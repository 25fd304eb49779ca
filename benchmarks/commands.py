"""`pcm bench NAME`: the command line of the runners. Heavy imports wait until a bench runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pcm_ros.evidence import Estimate
    from pcm_ros.evidence.document import Record

app = typer.Typer(no_args_is_help=True, help="Measure: each claim is a command that writes one JSON and one HTML report.")

Json = Annotated[
    Path | None, typer.Option("--json", help="Where the JSON goes; the report lies beside it (.html). Default: runs/NAME.json")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget the records of an unfinished run instead of going on with them.")]


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


def _finish(
    path: Path, figures: Callable[[Sequence[Record]], Mapping[str, str]] = lambda records: {}, together: Sequence[str] = ()
) -> None:
    from rich.console import Console
    from rich.table import Table

    from pcm_ros.evidence import Document, write_report

    document = Document.load(path)
    write_report(path, path.with_suffix(".html"), figures=figures, together=together)
    table = Table("result", "value", "95 % interval", "n", title=document.name)
    for name, estimate in document.results.items():
        table.add_row(name, f"{estimate.value:.4g}", _interval(estimate), str(estimate.n))
    console = Console()
    console.print(table)
    console.print(f"written: {path}, {path.with_suffix('.html')}")


def listed(text: str) -> tuple[str, ...]:
    """The names in "a, b"."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _grounders(text: str) -> tuple[str, ...]:
    from pcm_ros.tasks.manipulation.assembly import ManipulationConfig

    return listed(text) or ManipulationConfig.grounders


def _views(count: int | None, cameras: str) -> int | tuple[str, ...]:
    """ValueError if both are said."""
    if count is not None and cameras:
        raise ValueError(f"--views {count} and --cameras {cameras} exclude each other: say how many, or say which")
    return tuple(name.strip() for name in cameras.split(",")) if cameras else count or 5


def _fail(error: Exception) -> None:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2)


@app.command(
    cls=ListsSuites, epilog="Example: pcm bench manipulation --suite relations-1 --episodes 50 --seed 1000 --json runs/relations-1.json"
)
def manipulation(
    suite: Annotated[str, typer.Option(help="A registered task:")] = "relations-1",
    episodes: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode; the next ones count up.")] = 1000,
    views: Annotated[int | None, typer.Option(min=1, max=5, help="Number of camera views that perceive and judge. Default: 5")] = None,
    cameras: Annotated[
        str, typer.Option(help="Instead of --views: names of cameras, separated by commas: front, left, right, back, top")
    ] = "",
    scorers: Annotated[
        str, typer.Option(help="Vision-language experts, separated by commas, see `pcm models`; empty: the default ensemble")
    ] = "",
    segmenter: Annotated[str, typer.Option(help="embedded, or noise (text-conditioned masks replaced by noise)")] = "embedded",
    candidates: Annotated[int, typer.Option(min=1, max=100_000, help="Proposals per iteration.")] = 256,
    iterations: Annotated[int, typer.Option(min=1, max=100, help="Consensus iterations at most.")] = 6,
    aggregate: Annotated[str, typer.Option(help="sum, median or trimmed_mean")] = "sum",
    normalise: Annotated[str, typer.Option(help="none, zscore or rank")] = "none",
    clips: Annotated[
        Path | None, typer.Option(help="Folder for a video of every episode; the report shows the failures and a few successes.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")] = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster to run the episodes on.")] = None,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Episodes in the simulator: success from pixels alone, judged by physics truth."""
    from pcm_ros.benchmarks.manipulation import bench

    path = json or Path("runs/manipulation.json")
    try:
        bench(
            suite,
            episodes,
            seed,
            path,
            views=_views(views, cameras),
            grounders=_grounders(scorers),
            segmenter=segmenter,
            candidates=candidates,
            iterations=iterations,
            aggregate=aggregate,
            normalise=normalise,
            clips=clips,
            jobs=jobs,
            ray_address=ray,
            fresh=fresh,
        )
    except (ValueError, RuntimeError) as error:
        _fail(error)
    _finish(path)


@app.command(
    cls=ListsAxes,
    epilog="Example: pcm bench ablation --suite clutter --episodes 50 --seed 43000 --axes experts,views --jobs 2 --json runs/ablation.json"
    "\n\nOptimiser alone: pcm bench ablation --axes iterations --episodes 50 --jobs 2 --json runs/iterations.json",
)
def ablation(
    suite: Annotated[str, typer.Option(help="A registered task:")] = "clutter",
    episodes: Annotated[int, typer.Option(min=1, max=100_000, help="Episodes of each variant, the same for all.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode; the next ones count up.")] = 43000,
    axes: Annotated[str, typer.Option(help="What is varied, separated by commas; empty: all axes (see below).")] = "",
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")] = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster to run the episodes on.")] = None,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """The same episodes under variants of the configuration: each variant against the default, paired, with an exact test."""
    from pcm_ros.benchmarks.ablation import AXES, SHARED_PLOTS, bench, figures

    path = json or Path("runs/ablation.json")
    chosen = listed(axes) or tuple(AXES)
    try:
        document = bench(path, suite=suite, episodes=episodes, seed=seed, axes=chosen, jobs=jobs, ray_address=ray, fresh=fresh)
    except (ValueError, RuntimeError) as error:
        _fail(error)
    _finish(path, lambda records: figures(document.config["axes"], records), SHARED_PLOTS)


@app.command("world-model", epilog="Example: pcm bench world-model --candidates 256 --views 5")
def world_model(
    candidates: Annotated[int, typer.Option(min=1, max=100_000)] = 256,
    views: Annotated[int, typer.Option(min=1, max=5)] = 5,
    scenes: Annotated[int, typer.Option(min=1, max=1000)] = 3,
    seed: Annotated[int, typer.Option(min=0)] = 1000,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """One consensus iteration on predicted views against simulating and rendering each candidate."""
    from pcm_ros.benchmarks.world_model import bench

    path = json or Path("runs/world-model.json")
    try:
        bench(path, candidates=candidates, views=views, scenes=scenes, seed=seed, fresh=fresh)
    except (ValueError, RuntimeError) as error:
        _fail(error)
    _finish(path)


@app.command(cls=ListsSuites, epilog="Example: pcm bench grounding --suite relations-1 --scenes 50")
def grounding(
    suite: Annotated[str, typer.Option(help="Task whose scenes are used:")] = "relations-1",
    scenes: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    seed: Annotated[int, typer.Option(min=0)] = 5000,
    scorers: Annotated[str, typer.Option(help="Vision-language experts, separated by commas; empty: all of the default ensemble.")] = "",
    jobs: Annotated[int, typer.Option(min=1, max=256)] = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Perception and grounding alone: is the object that a phrase means the one that is picked?"""
    from pcm_ros.benchmarks.grounding import bench, figures

    path = json or Path("runs/grounding.json")
    try:
        bench(path, suite=suite, scenes=scenes, seed=seed, experts=_grounders(scorers), jobs=jobs, fresh=fresh)
    except (ValueError, RuntimeError) as error:
        _fail(error)
    _finish(path, figures)


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
        _fail(error)
    table = Table("", "value", "95 % interval", "n", title=f"{field}: {first} against {second}")
    for name in ("first", "second", "difference"):
        estimate = document.results[name]
        table.add_row(
            name, f"{estimate.value:+.4g}" if name == "difference" else f"{estimate.value:.4g}", _interval(estimate), str(estimate.n)
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


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.4g} .. {estimate.high:.4g}" if math.isfinite(estimate.low) else "-"


@app.command(cls=ListsSuites, epilog="Example: pcm bench ros --episodes 200 --json runs/ros.json")
def ros(
    episodes: Annotated[int, typer.Option(min=1, max=100_000)] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode; the next ones count up.")] = 1000,
    suite: Annotated[str, typer.Option(help="A registered task:")] = "relations-1",
    compare: Annotated[int, typer.Option(min=0, help="So many of the first episodes are run in one process too, in turn.")] = 10,
    config: Annotated[Path | None, typer.Option(help="Parameter file of the system. Default: config/manipulation.yaml")] = None,
    clips: Annotated[Path | None, typer.Option(help="Folder for a video of every episode.")] = None,
    json: Json = None,
) -> None:
    """The ROS system for many episodes without a restart: memory, lost messages, deaths; its overhead against one process."""
    from pcm_ros.benchmarks.ros import bench

    path = json or Path("runs/ros.json")
    try:
        bench(episodes, seed, path, suite=suite, compare=compare, parameter_file=config, clips=clips)
    except KeyboardInterrupt:
        typer.echo("interrupted: all processes of the system ended", err=True)
        raise typer.Exit(130) from None
    except (ValueError, RuntimeError) as error:
        _fail(error)
    _finish(path)


@app.command("predicted-views", epilog="Example: pcm bench predicted-views --scenes 20 --views 5")
def predicted_views(
    scenes: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    views: Annotated[int, typer.Option(min=1, max=5)] = 5,
    suite: Annotated[str, typer.Option(help="Task whose scenes are used.")] = "relations-1",
    seed: Annotated[int, typer.Option(min=0)] = 4000,
    jobs: Annotated[int, typer.Option(min=1, max=256)] = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Predicted views against what the cameras see after the action: silhouettes, pixels, places; pairs as pictures."""
    from pcm_ros.benchmarks.predicted_views import bench

    path = json or Path("runs/predicted-views.json")
    try:
        bench(path, suite=suite, scenes=scenes, views=views, seed=seed, jobs=jobs, fresh=fresh)
    except (ValueError, RuntimeError) as error:
        _fail(error)
    _finish(path)


@app.command(epilog="Example: pcm bench planning --scenes 20")
def planning(
    scenes: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    views: Annotated[int, typer.Option(min=1, max=5)] = 5,
    suite: Annotated[str, typer.Option(help="Task whose scenes are used.")] = "relations-1",
    seed: Annotated[int, typer.Option(min=0)] = 4000,
    configurations: Annotated[
        str, typer.Option(help="Separated by commas: all, pictures (predicted views are looked at too), cheap (masks and geometry)")
    ] = "all,pictures,cheap",
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Seconds of a planning step, perception included, and where they go."""
    from pcm_ros.benchmarks.planning import bench

    path = json or Path("runs/planning.json")
    try:
        bench(path, suite=suite, scenes=scenes, views=views, seed=seed, configurations=tuple(configurations.split(",")), fresh=fresh)
    except (ValueError, RuntimeError) as error:
        _fail(error)
    _finish(path)


@app.command(
    epilog="Examples: pcm bench maths --mode select --data gsm8k/dev_solutions.jsonl; "
    "pcm bench maths --mode solve --data svamp/dev.jsonl --limit 50; pcm bench maths --mode speed --data gsm8k/dev.jsonl --limit 10"
)
def maths(
    data: Annotated[Path, typer.Option(help="JSON lines with `question` and `answer`; for select also `solutions` and `correct`.")],
    mode: Annotated[
        str,
        typer.Option(help="select (rank given solutions), solve (greedy, samples, consensus), speed (shared prefix)."),
    ] = "solve",
    limit: Annotated[int | None, typer.Option(min=1, help="So many problems, chosen by the seed. Default: all.")] = None,
    model: Annotated[Path | None, typer.Option(help="GGUF file or folder of another language model.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Its low-rank adapter. Default: the one of the package, if there is one.")] = None,
    sentence: Annotated[Path | None, typer.Option(help="Weights of a trained sentence verifier, to join the ensemble.")] = None,
    hidden: Annotated[Path | None, typer.Option(help="Weights of a trained hidden-state verifier of the adapter.")] = None,
    beam: Annotated[int, typer.Option(min=1, max=64, help="Partial solutions kept.")] = 5,
    proposals: Annotated[int, typer.Option(min=1, max=64, help="Steps drawn for each; a lot of samples is beam * proposals.")] = 4,
    temperature: Annotated[float, typer.Option(help="Of the draws.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens that a solution, or a lot of samples, may cost.")] = 4000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    jobs: Annotated[int, typer.Option(min=1, max=256)] = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Word problems: accuracy of consensus, of its baselines and of each scorer, with paired differences; or tokens a second."""
    from pcm_ros.benchmarks.maths import bench
    from pcm_ros.evidence import BenchError, JournalError

    path = json or Path(f"runs/maths-{mode}.json")
    try:
        bench(
            path,
            mode=mode,
            data=data,
            limit=limit,
            model=model,
            adapter=adapter,
            sentence=sentence,
            hidden=hidden,
            beam=beam,
            proposals=proposals,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            jobs=jobs,
            fresh=fresh,
        )
    except (ValueError, BenchError, JournalError) as error:
        _fail(error)
    _finish(path)


@app.command(
    epilog="Examples: pcm bench video --questions 300 --json runs/video.json; "
    "pcm bench video --data activitynet/test_q.json --clips activitynet/videos --questions 100"
)
def video(
    questions: Annotated[int, typer.Option(min=1, max=1_000_000, help="At least so many; rendered clips have six or so each.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Number of the first rendered clip; from 100000 on they are for tests.")] = 100_000,
    frames: Annotated[int, typer.Option(min=1, max=64, help="Frames that are looked at.")] = 12,
    policy: Annotated[str, typer.Option(help="uniform or change")] = "uniform",
    scorers: Annotated[str, typer.Option(help="Experts, separated by commas; empty: all")] = "",
    words_only: Annotated[
        bool, typer.Option("--words-only", help="The language model's own words alone are candidates, no phrases for what is seen.")
    ] = False,
    strategy: Annotated[str, typer.Option(help="words, or gradient: answers written by gradients too")] = "words",
    model: Annotated[Path | None, typer.Option(help="GGUF file or folder of another language model.")] = None,
    data: Annotated[Path | None, typer.Option(help="JSON of questions as of ActivityNet-QA, in place of rendered clips.")] = None,
    clips: Annotated[Path | None, typer.Option(help="Folder of its videos.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256)] = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Questions about clips: the ensemble against the language model and each expert alone, by kind of question; judged by physics."""
    from pcm_ros.benchmarks.video import bench
    from pcm_ros.tasks.video_qa.assembly import SCORERS

    path = json or Path("runs/video.json")
    chosen = listed(scorers) or SCORERS
    try:
        bench(
            path,
            questions=questions,
            seed=seed,
            frames=frames,
            policy=policy,
            scorers=chosen,
            told=not words_only,
            strategy=strategy,  # type: ignore[arg-type]
            model=model,
            data=data,
            clips=clips,
            jobs=jobs,
            fresh=fresh,
        )
    except (ValueError, RuntimeError) as error:
        _fail(error)
    _finish(path)


@app.command(
    epilog="Examples: pcm bench image --prompts 200 --jobs 2 --json runs/image.json; "
    "pcm bench image --prompts 50 --experts segmenter,pcm-clip-towers --gradient 0"
)
def image(
    prompts: Annotated[int, typer.Option(min=2, max=100_000, help="Held-out prompts.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the prompts.")] = 1000,
    steps: Annotated[int, typer.Option(min=2, max=250, help="Denoising steps of each picture.")] = 40,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance.")] = 4.0,
    count: Annotated[int, typer.Option(min=1, max=16, help="Pictures that the ensemble chooses from.")] = 8,
    experts: Annotated[str, typer.Option(help="That choose, separated by commas; empty: all that read pictures.")] = "",
    gradient: Annotated[int, typer.Option(min=0, help="So many of the prompts are painted by gradients too, which is slow.")] = 40,
    push: Annotated[float, typer.Option(help="How far a gradient may move the picture in a step, as a share of its length.")] = 0.02,
    model: Annotated[Path | None, typer.Option(help="Folder of another diffusion model in diffusers' format.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256)] = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Held-out prompts: guidance alone, several pictures of which each expert or all choose, gradients; read by a detector of its own."""
    from pcm_ros.benchmarks.image import bench, figures
    from pcm_ros.tasks.image_generation.assembly import READERS

    path = json or Path("runs/image.json")
    chosen = listed(experts) or READERS
    try:
        bench(
            path,
            prompts=prompts,
            seed=seed,
            steps=steps,
            guidance=guidance,
            count=count,
            experts=chosen,
            gradient=gradient,
            push=push,
            model=model,
            jobs=jobs,
            fresh=fresh,
        )
    except (ValueError, RuntimeError) as error:
        _fail(error)
    _finish(path, figures)
