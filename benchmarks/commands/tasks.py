"""Benches of the tasks that answer questions: maths, clips, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcm_ros.benchmarks.commands.options import Fresh, Jobs, Json, reported
from pcm_ros.command_options import listed

app = typer.Typer()


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
    sentence: Annotated[Path | None, typer.Option(help="Weights of a sentence verifier. Default: the package's, if there are any.")] = None,
    hidden: Annotated[Path | None, typer.Option(help="Weights of the adapter's hidden-state verifier. Default: likewise.")] = None,
    verifiers: Annotated[bool, typer.Option(help="Whether the trained verifiers join the ensemble.")] = True,
    beam: Annotated[int, typer.Option(min=1, max=64, help="Partial solutions kept.")] = 5,
    proposals: Annotated[int, typer.Option(min=1, max=64, help="Steps drawn for each.")] = 4,
    temperature: Annotated[float, typer.Option(help="Of the draws.")] = 0.7,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens that a solution may cost. Default: 200 * beam * proposals, at least 4000.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    jobs: Jobs = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Word problems: accuracy of consensus, of its baselines and of each scorer, with paired differences; or tokens a second."""
    from pcm_ros.benchmarks.maths import bench

    path = json or Path(f"runs/maths-{mode}.json")
    with reported(path):
        bench(
            path,
            mode=mode,
            data=data,
            limit=limit,
            model=model,
            adapter=adapter,
            sentence=sentence,
            hidden=hidden,
            verifiers=verifiers,
            beam=beam,
            proposals=proposals,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            jobs=jobs,
            fresh=fresh,
        )


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
    jobs: Jobs = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Questions about clips: the ensemble against the language model and each expert alone, by kind of question; judged by physics."""
    from pcm_ros.benchmarks.video import bench
    from pcm_ros.tasks.video_qa.assembly import SCORERS

    path = json or Path("runs/video.json")
    chosen = listed(scorers) or SCORERS
    with reported(path):
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
    jobs: Jobs = 1,
    json: Json = None,
    fresh: Fresh = False,
) -> None:
    """Held-out prompts: guidance alone, several pictures of which each expert or all choose, gradients; read by a detector of its own."""
    from pcm_ros.benchmarks.image import bench, figures
    from pcm_ros.tasks.image_generation.assembly import READERS

    path = json or Path("runs/image.json")
    chosen = listed(experts) or READERS
    with reported(path, figures):
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
