"""Benches of the robot: whole episodes, what each part of the system is worth, and its parts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcm_ros.benchmarks.commands.options import Fresh, Jobs, Json, ListsAxes, ListsSuites, reported
from pcm_ros.command_options import listed

app = typer.Typer()


def _grounders(text: str) -> tuple[str, ...]:
    from pcm_ros.tasks.manipulation.assembly import ManipulationConfig

    return listed(text) or ManipulationConfig.grounders


def _views(count: int | None, cameras: str) -> int | tuple[str, ...]:
    """ValueError if both are said."""
    if count is not None and cameras:
        raise ValueError(f"--views {count} and --cameras {cameras} exclude each other: say how many, or say which")
    return listed(cameras) or count or 5


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
    jobs: Jobs = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster to run the episodes on.")] = None,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Episodes in the simulator: success from pixels alone, judged by physics truth."""
    from pcm_ros.benchmarks.manipulation import bench

    path = json or Path("runs/manipulation.json")
    with reported(path):
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
    jobs: Jobs = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster to run the episodes on.")] = None,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """The same episodes under variants of the configuration: each variant against the default, paired, with an exact test."""
    from pcm_ros.benchmarks.ablation import AXES, SHARED_PLOTS, bench, figures

    path = json or Path("runs/ablation.json")
    chosen = listed(axes) or tuple(AXES)
    with reported(path, lambda records: figures(document.config["axes"], records), SHARED_PLOTS):
        document = bench(path, suite=suite, episodes=episodes, seed=seed, axes=chosen, jobs=jobs, ray_address=ray, fresh=fresh)


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
    with reported(path):
        bench(path, candidates=candidates, views=views, scenes=scenes, seed=seed, fresh=fresh)


@app.command(cls=ListsSuites, epilog="Example: pcm bench grounding --suite relations-1 --scenes 50")
def grounding(
    suite: Annotated[str, typer.Option(help="Task whose scenes are used:")] = "relations-1",
    scenes: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    seed: Annotated[int, typer.Option(min=0)] = 5000,
    scorers: Annotated[str, typer.Option(help="Vision-language experts, separated by commas; empty: all of the default ensemble.")] = "",
    jobs: Jobs = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Perception and grounding alone: is the object that a phrase means the one that is picked?"""
    from pcm_ros.benchmarks.grounding import bench, figures

    path = json or Path("runs/grounding.json")
    with reported(path, figures):
        bench(path, suite=suite, scenes=scenes, seed=seed, experts=_grounders(scorers), jobs=jobs, fresh=fresh)


@app.command(cls=ListsSuites, epilog="Example: pcm bench ros --episodes 200 --json runs/ros.json")
def ros(
    episodes: Annotated[int, typer.Option(min=1, max=100_000)] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode; the next ones count up.")] = 1000,
    suite: Annotated[str, typer.Option(help="A registered task but image-goal and impossible, which are refused:")] = "relations-1",
    compare: Annotated[int, typer.Option(min=0, help="So many of the first episodes are run in one process too, in turn.")] = 10,
    config: Annotated[Path | None, typer.Option(help="Parameter file of the system. Default: config/manipulation.yaml")] = None,
    clips: Annotated[Path | None, typer.Option(help="Folder for a video of every episode.")] = None,
    json: Json = None,
) -> None:
    """The ROS system for many episodes without a restart: memory, lost messages, deaths; its overhead against one process."""
    from pcm_ros.benchmarks.ros import bench

    path = json or Path("runs/ros.json")
    try:
        with reported(path):
            bench(episodes, seed, path, suite=suite, compare=compare, parameter_file=config, clips=clips)
    except KeyboardInterrupt:
        typer.echo("interrupted: all processes of the system ended", err=True)
        raise typer.Exit(130) from None


@app.command("predicted-views", epilog="Example: pcm bench predicted-views --scenes 20 --views 5")
def predicted_views(
    scenes: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    views: Annotated[int, typer.Option(min=1, max=5)] = 5,
    suite: Annotated[str, typer.Option(help="Task whose scenes are used.")] = "relations-1",
    seed: Annotated[int, typer.Option(min=0)] = 4000,
    jobs: Jobs = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Predicted views against what the cameras see after the action: silhouettes, pixels, places; pairs as pictures."""
    from pcm_ros.benchmarks.predicted_views import bench

    path = json or Path("runs/predicted-views.json")
    with reported(path):
        bench(path, suite=suite, scenes=scenes, views=views, seed=seed, jobs=jobs, fresh=fresh)


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
    with reported(path):
        bench(path, suite=suite, scenes=scenes, views=views, seed=seed, configurations=listed(configurations), fresh=fresh)
