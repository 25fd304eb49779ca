"""Pictures of tiny random models: what holds whatever the weights are."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pcm_ros.consensus import Batch, Scorer
from pcm_ros.models.diffusion import DiffusionModel
from pcm_ros.tasks.image_generation import Painter, Progress, Prompt, Request, UnusablePrompt, generate, painter, read_prompt
from pcm_ros.tasks.image_generation.assembly import Busy
from pcm_ros.tasks.image_generation.painter import Experts
from pcm_ros.tasks.image_generation.prompt import Relation

PROMPT = "a red mug to the left of a blue bowl"


class Redness:
    """An expert that wants the picture red: mean squared distance of the picture from pure red."""

    cost, differentiable = 1e-3, True

    def __init__(self, name: str = "redness") -> None:
        self.name = name

    def energy(self, batch: Batch, context: object) -> Tensor:
        red = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
        return (batch.extras["image"] - red).square().mean(dim=(1, 2, 3)).double()


class BreaksDown(Redness):
    """Its gradient is NaN from its third round on; its energies stay finite."""

    def __init__(self) -> None:
        super().__init__("breaks-down")
        self.round = 0

    def energy(self, batch: Batch, context: object) -> Tensor:
        self.round += 1
        energies = super().energy(batch, context)
        if self.round < 3 or not batch.parameters.requires_grad:
            return energies
        zero = (batch.parameters - batch.parameters.detach()).sum(dim=1)
        return energies + (zero * 0).sqrt()


def only(*experts: Scorer) -> Experts:
    return lambda prompt: list(experts)


@pytest.fixture(scope="module")
def model(folder: Path) -> DiffusionModel:
    return DiffusionModel(folder)


def red(picture: np.ndarray) -> float:
    return float(picture[..., 0].mean() - picture[..., 1:].mean())


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("recurrences", [1, 2])
def test_experts_pull_the_picture_their_way(folder: Path, solver: str, recurrences: int) -> None:
    model = DiffusionModel(folder, solver)
    request = Request(PROMPT, 3, steps=8, recurrences=recurrences)
    guided = Painter(model, only(Redness()), push=0.3).paint(request)
    plain = Painter(model, only()).paint(request)
    assert red(guided.image) > red(plain.image) + 5
    assert guided.complete
    assert len(guided.history) == 8 * recurrences
    assert guided.history[-1]["redness"] < guided.history[0]["redness"]


@pytest.mark.parametrize("recurrences", [1, 2])
def test_the_same_seed_gives_the_same_picture(model: DiffusionModel, recurrences: int) -> None:
    painter = Painter(model, only(Redness()))
    first, second, other = (painter.paint(Request(PROMPT, seed, steps=4, recurrences=recurrences)) for seed in (7, 7, 8))
    assert np.array_equal(first.image, second.image)
    assert first.history == second.history
    assert not np.array_equal(first.image, other.image)


def test_guidance_is_classifier_free_guidance(model: DiffusionModel) -> None:
    """One round: from the conditional prediction by scale - 1 times its difference from the unconditional one."""
    painter = Painter(model, only())
    shape = model.latent_shape(32, 32)
    from pcm_ros.consensus import mixed_seed

    sample = torch.randn((1, *shape), generator=torch.Generator().manual_seed(mixed_seed(5, 0)))
    solver = model.new_solver()
    solver.set_timesteps(2)
    with torch.no_grad():
        for timestep in solver.timesteps:
            without, conditional = model.clean(sample, timestep, ["", PROMPT])
            clean = without + 3.0 * (conditional - without)
            sample = solver.step(clean, timestep, sample, return_dict=False)[0]
        expected = ((model.decode(clean).clamp(-1, 1) + 1) * 127.5).round()[0].permute(1, 2, 0).numpy()
    painted = painter.paint(Request(PROMPT, 5, steps=2, guidance=3.0)).image
    assert np.abs(painted.astype(float) - expected).max() <= 1


def test_an_avoided_concept_changes_the_picture_and_joined_ones_are_all_heard(model: DiffusionModel) -> None:
    painter = Painter(model, only())
    pictures = [
        painter.paint(Request(text, 1, steps=3)) for text in ("a red mug", "a red mug AND NOT a blue bowl", "a red mug AND two bowl")
    ]
    assert set(pictures[1].history[0]) == {"guidance", "avoid-1"}
    assert set(pictures[2].history[0]) == {"guidance", "guidance-1"}
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not np.array_equal(pictures[one].image, pictures[other].image)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5])
def test_any_scale_of_guidance_gives_a_picture(model: DiffusionModel, guidance: float) -> None:
    assert Painter(model, only()).paint(Request(PROMPT, 1, steps=2, guidance=guidance)).complete


def test_an_expert_whose_gradient_breaks_down_is_named_and_the_picture_is_finished(model: DiffusionModel) -> None:
    picture = Painter(model, only(Redness(), BreaksDown()), push=0.3).paint(Request(PROMPT, 3, steps=8))
    assert picture.complete
    rounds, why = picture.dropped["breaks-down"]
    assert rounds == 6
    assert "gradients are NaN" in why
    alone = Painter(model, only(Redness()), push=0.3).paint(Request(PROMPT, 3, steps=8))
    plain = Painter(model, only()).paint(Request(PROMPT, 3, steps=8))
    assert red(picture.image) > red(plain.image) + 0.5 * (red(alone.image) - red(plain.image))


def test_best_of_n_is_the_one_that_the_experts_like_best(model: DiffusionModel) -> None:
    picture = Painter(model, only(Redness()), guided=False).paint(Request(PROMPT, 3, steps=3, count=4))
    shown = [picture.image, *picture.others]
    distance = [float(((image / 127.5 - 1 - np.array([1, -1, -1])) ** 2).mean()) for image in shown]
    assert distance == pytest.approx(sorted(distance), abs=2e-3)  # pictures are rounded
    assert distance[-1] > distance[0] + 2e-3
    assert picture.energies["redness"] == pytest.approx(distance[0], abs=2e-3)
    assert [found["redness"] for found in picture.energies_of_others] == pytest.approx(distance[1:], abs=2e-3)
    assert set(picture.history[0]) == {"guidance"}
    begun = Painter(model, only(), guided=False).paint(Request(PROMPT, 3, steps=3, count=4))
    assert begun.order == (0, 1, 2, 3)
    assert picture.order != begun.order and sorted(picture.order) == [0, 1, 2, 3]
    for place, image in zip(picture.order, shown, strict=True):
        assert np.array_equal(image, [begun.image, *begun.others][place])


def test_previews_are_decoded_for_those_who_look_and_show_their_round(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DiffusionModel(folder)
    decode, decoded = model.decode, list[int]()

    def counted(sample: Tensor) -> Tensor:
        decoded.append(len(sample))
        return decode(sample)

    monkeypatch.setattr(model, "decode", counted)
    seen: list[Progress] = []
    at_once: list[np.ndarray] = []
    Painter(model, only()).paint(Request(PROMPT, 3, steps=4), progress=seen.append)
    assert decoded == [1], "nobody looked at a preview: the finished picture alone is decoded"
    picture = Painter(model, only()).paint(Request(PROMPT, 3, steps=4), progress=lambda progress: at_once.append(progress.preview))
    for late, early in zip(seen, at_once, strict=True):
        assert np.array_equal(late.preview, early)
    assert not np.array_equal(at_once[0], at_once[-1]) and np.array_equal(at_once[-1], picture.image)
    count = len(decoded)
    assert seen[0].preview is seen[0].preview and len(decoded) == count


@pytest.mark.parametrize("after", [1, 2, 5])
def test_cancelled_at_any_round(model: DiffusionModel, after: int) -> None:
    seen: list[Progress] = []
    picture = Painter(model, only(Redness())).paint(Request(PROMPT, 3, steps=6), cancelled=lambda: len(seen) >= after, progress=seen.append)
    assert len(seen) == len(picture.history) == after
    assert (picture.complete, picture.reason) == (False, "cancelled")
    assert picture.image.shape == (32, 32, 3)
    assert [progress.round for progress in seen] == list(range(1, after + 1))
    assert seen[0].rounds == 6
    assert seen[0].preview.shape == (32, 32, 3)


def test_a_deadline_that_is_over_still_gives_what_was_predicted(model: DiffusionModel) -> None:
    picture = Painter(model, only()).paint(Request(PROMPT, steps=50), deadline=1e-6)
    assert (len(picture.history), picture.complete, picture.reason) == (1, False, "deadline")


class Slow(Redness):
    """It takes its time over finished pictures."""

    differentiable = False

    def __init__(self) -> None:
        super().__init__("slow")
        self.go_on = threading.Event()

    def energy(self, batch: Batch, context: object) -> Tensor:
        self.go_on.wait(30)
        return super().energy(batch, context)


def test_the_deadline_holds_for_the_last_reading_too(model: DiffusionModel) -> None:
    slow = Slow()
    picture = Painter(model, only(slow)).paint(Request(PROMPT, steps=2, count=2), deadline=5.0)
    slow.go_on.set()
    assert 5.0 <= picture.seconds < 20.0
    assert (picture.complete, picture.reason, len(picture.history)) == (False, "deadline", 2)
    assert picture.dropped["slow"][1].startswith("no answer within")
    assert len(picture.others) == 1


def test_other_sizes_than_the_models_own(model: DiffusionModel) -> None:
    assert Painter(model, only()).paint(Request(PROMPT, steps=2, height=24, width=40)).image.shape == (24, 40, 3)
    with pytest.raises(ValueError, match="height is 30; allowed: multiples of 8"):
        Painter(model, only()).paint(Request(PROMPT, steps=2, height=30))


def test_eight_at_once_all_get_their_own_picture(folder: Path) -> None:
    found: dict[int, np.ndarray] = {}

    def ask(seed: int) -> None:
        found[seed] = generate(PROMPT, seed, steps=2, model=folder, method="guidance").image

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(8))
    for seed in range(8):
        assert np.array_equal(found[seed], generate(PROMPT, seed, steps=2, model=folder, method="guidance").image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"prompt": "x" * 10_000}, "the prompt has 10000 characters; allowed: 1..300"),
        ({"prompt": "NOT a mug"}, "nothing that is wanted"),
        ({"prompt": " AND ".join(["mug"] * 7)}, "has 7 concepts; allowed: up to 6"),
        ({"steps": 1}, r"steps is 1; allowed: 2\.\.250"),
        ({"count": 17}, "count is 17"),
        ({"recurrences": 0}, "recurrences is 0"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"guidance": math.nan}, "guidance is nan"),
    ],
)
def test_requests_out_of_range(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request(**{"prompt": PROMPT, **arguments})  # type: ignore[arg-type]


def test_methods_and_experts_out_of_range(folder: Path) -> None:
    with pytest.raises(ValueError, match="method is 'magic'; allowed: consensus, gradient, guidance"):
        generate(PROMPT, model=folder, method="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="experts \\['nobody'\\] are unknown"):
        generate(PROMPT, model=folder, experts=["nobody"])
    with pytest.raises(ValueError, match="experts \\['nobody'\\] are unknown"):
        generate(PROMPT, model=folder, method="guidance", experts=["nobody"])
    with pytest.raises(ValueError, match="of which none can guide; allowed: at least one of segmenter"):
        generate(PROMPT, model=folder, method="gradient", experts=["pcm-clip-colors"])
    with pytest.raises(ValueError, match="experts are \\['segmenter', 'segmenter'\\]; allowed: each of them once"):
        painter("consensus", folder, experts=["segmenter", "segmenter"])
    with pytest.raises(ValueError, match="method 'consensus' needs some; allowed: at least one of segmenter"):
        painter("consensus", folder, experts=())
    assert generate(PROMPT, model=folder, method="guidance", experts=(), steps=2).complete


@contextmanager
def somebody_paints(folder: Path) -> Iterator[None]:
    """While another thread is in the middle of a picture."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(progress: Progress) -> None:
        begun.set()
        go_on.wait(30)

    thread = threading.Thread(target=lambda: generate(PROMPT, steps=2, model=folder, method="guidance", progress=hold))
    thread.start()
    try:
        assert begun.wait(30)
        yield
    finally:
        go_on.set()
        thread.join()


@pytest.mark.parametrize("deadline", [math.inf, 1e10])
def test_deadlines_of_any_length(folder: Path, deadline: float) -> None:
    assert generate(PROMPT, steps=2, model=folder, method="guidance", deadline=deadline).complete
    with pytest.raises(ValueError, match="deadline is nan; allowed: seconds"):
        generate(PROMPT, steps=2, model=folder, method="guidance", deadline=math.nan)


def test_whoever_waits_for_a_turn_hears_cancellation_and_deadline(folder: Path) -> None:
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 1

    with somebody_paints(folder):
        start = time.monotonic()
        with pytest.raises(Busy, match="cancelled while other pictures were painted"):
            generate(PROMPT, steps=2, model=folder, method="guidance", cancelled=cancelled)
        with pytest.raises(Busy, match=r"deadline of 0\.3 s passed"):
            generate(PROMPT, steps=2, model=folder, method="guidance", deadline=0.3)
        assert time.monotonic() - start < 5.0


LEFT, ON = Relation(0, "left", 1), Relation(0, "on", 1)


@pytest.mark.parametrize(
    ("text", "wanted", "avoided", "things", "counts", "relations"),
    [
        ("a red mug to the left of a blue bowl", None, (), ("red mug", "blue bowl"), (1, 1), (LEFT,)),
        ("a red mug on the left of a blue bowl", None, (), ("red mug", "blue bowl"), (1, 1), (LEFT,)),
        ("two red mugs and a can", None, (), ("red mug", "can"), (2, 1), ()),
        ("3 red boxes", None, (), ("red box",), (3,), ()),
        ("a red mug and a red mug", None, (), ("red mug",), (2,), ()),
        ("a mug on a table AND NOT a plate", ("a mug on a table",), ("a plate",), ("mug",), (1,), ()),
        ("NOT a plate AND a duck AND a can", ("a duck", "a can"), ("a plate",), ("duck", "can"), (1, 1), ()),
        (
            "a can in a purple bowl, and a red can behind the purple bowl",
            None,
            (),
            ("can", "purple bowl", "red can"),
            (1, 1, 1),
            (Relation(0, "in", 1), Relation(2, "behind", 1)),
        ),
        (
            "a red mug left of a blue bowl and behind a green block",
            None,
            (),
            ("red mug", "blue bowl", "green block"),
            (1, 1, 1),
            (LEFT, Relation(0, "behind", 2)),
        ),
        ("a mug on a table and behind a can", None, (), ("mug", "can"), (1, 1), (Relation(0, "behind", 1),)),
        ("a mug is on a can, and is behind a block", None, (), ("mug", "can", "block"), (1, 1, 1), (ON, Relation(0, "behind", 2))),
        ("a pair of red mugs", None, (), ("red mug",), (2,), ()),
        ("two pairs of mugs and a pair of scissors", None, (), ("mug", "scissors"), (4, 1), ()),
        ("two vases, three glasses and two red boxes", None, (), ("vase", "glass", "red box"), (2, 3, 2), ()),
        ("a red mug and another red mug", None, (), ("red mug",), (2,), ()),
        ("a 5 door car", None, (), ("5 door car",), (1,), ()),
        ("a mug in 1950 style", None, (), ("mug", "1950 style"), (1, 1), (Relation(0, "in", 1),)),
        ("a mug on the left side of a bowl", None, (), ("mug", "bowl"), (1, 1), (LEFT,)),
        ("a mug at the left of a bowl", None, (), ("mug", "bowl"), (1, 1), (LEFT,)),
        ("a mug to the left side of a bowl", None, (), ("mug", "bowl"), (1, 1), (LEFT,)),
        ("a mug on the left-hand side of a bowl", None, (), ("mug", "bowl"), (1, 1), (LEFT,)),
        ("the mug is left of the bowl", None, (), ("mug", "bowl"), (1, 1), (LEFT,)),
        ("two mugs stand directly left of a bowl", None, (), ("mug", "bowl"), (2, 1), (LEFT,)),
        ("a mug directly behind a bowl", None, (), ("mug", "bowl"), (1, 1), (Relation(0, "behind", 1),)),
        ("a mug right behind a bowl", None, (), ("mug", "bowl"), (1, 1), (Relation(0, "behind", 1),)),
        ("a mug in the middle and a bowl in the corner", None, (), ("mug", "bowl"), (1, 1), ()),
        ("a mug in the foreground", None, (), ("mug",), (1,), ()),
        ("a mug in the middle of the picture", None, (), ("mug",), (1,), ()),
        ("a mug and a bowl next to each other", None, (), ("mug", "bowl"), (1, 1), ()),
        ("a mug to the left and a bowl on the right side", None, (), ("mug", "bowl"), (1, 1), ()),
        ("beauty", None, (), ("beauty",), (1,), ()),
        ("on the table", None, (), ("on the table",), (1,), ()),
    ],
)
def test_what_prompts_ask_for(
    text: str,
    wanted: tuple[str, ...] | None,
    avoided: tuple[str, ...],
    things: tuple[str, ...],
    counts: tuple[int, ...],
    relations: tuple[Relation, ...],
) -> None:
    assert read_prompt(text) == Prompt(text, wanted or (text,), avoided, things, counts, relations)


@pytest.mark.parametrize(
    "text",
    [
        "five red mugs",
        "a dozen mugs",
        "12 mugs and a bowl",
        "0 mugs",
        "twenty-five mugs",
        "two hundred mugs",
        "three pairs of mugs",
        "three mugs and two mugs",
    ],
)
def test_more_alike_things_than_are_counted(text: str) -> None:
    with pytest.raises(UnusablePrompt, match=r"allowed: 1\.\.4 alike; remedy: ask for fewer"):
        read_prompt(text)


@pytest.mark.parametrize(
    "text",
    ["a red mug and no bowl", "a mug, not a blue one", "a mug without a bowl", "a mug that isn't red AND a can", "neither mug nor can"],
)
def test_negation_in_other_words_than_those_that_are_read(text: str) -> None:
    with pytest.raises(UnusablePrompt, match="exclude by AND NOT in capitals"):
        read_prompt(text)


@pytest.mark.parametrize("text", ["a red mug beside a knot", "a nut and a note AND NOT a mug without a handle"])
def test_what_only_looks_like_a_negation(text: str) -> None:
    assert len(read_prompt(text).things) == 2


LONG = (
    "a red mug with a tall green lid and a thin golden rim and a long curved handle and a small painted flower and an old label on it"
    " and a broken saucer"
)


@pytest.mark.parametrize("text", [LONG, f"a blue bowl AND NOT {LONG}"])
def test_a_concept_that_the_model_would_not_read_to_its_end(model: DiffusionModel, text: str) -> None:
    with pytest.raises(UnusablePrompt, match=r"is \d tokens? longer than what the model reads.*remedy: say less, or split it by AND"):
        Painter(model, only()).paint(Request(text, steps=2))
    parts = LONG.split(" and ")
    split = f"{' and '.join(parts[:3])} AND {' and '.join(parts[3:])}"
    assert Painter(model, only()).paint(Request(split, steps=2)).complete


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        prompt = read_prompt(text)
    except UnusablePrompt:
        return
    assert len(prompt.things) == len(prompt.counts) >= 1
    assert all(1 <= count <= 4 for count in prompt.counts)
    assert all({relation.subject, relation.object} <= set(range(len(prompt.things))) for relation in prompt.relations)


def test_unusable_prompts_are_value_errors() -> None:
    with pytest.raises(UnusablePrompt):
        read_prompt("")
