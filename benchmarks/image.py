"""Pictures of prompts that were held out: does an ensemble of experts put more of a prompt into the picture than guidance alone?

A detector that no expert uses reads each picture (`picture_judge`); a prompt is fulfilled if exactly the things that it names are there and
stand as it says. Methods, all from the same noise:

- guidance: classifier-free guidance alone, one picture
- ensemble: the experts agree on one of `count` pictures
- expert.NAME: that expert alone chooses among the same pictures, of those that it likes equally the one whose noise came first (which is
  the picture of an expert that did not answer); "names" is the product of several models, and not among the single ones with which the
  ensemble is compared
- equal-compute: the ensemble agrees on one of EQUAL pictures of `steps / EQUAL` steps each: no more denoising than for guidance's one
- gradient: all experts that are differentiable guide each step of one picture (the paper's way); gradient.NAME: one of them alone. These
  are slow, and are compared with guidance on the first prompts only.

A method that raises has not fulfilled the prompt.

Besides, how much the pictures look like renders of the simulator: KID (Binkowski et al., arXiv 1801.01401), lower is better, 0 = alike. Its
features are those of the judge's own tower, which no expert uses: experts that guide or choose by a network would be praised by its
features. FID is not given: its bias depends on the number of pictures, and methods of one run may have painted different numbers.
"""

from __future__ import annotations

import base64
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pybullet
import torch
from torch import nn
from torch.nn import functional

from pcm_ros.benchmarks.picture_judge import JUDGE, SIZE, JudgeNetwork, PictureJudge
from pcm_ros.benchmarks.picture_prompts import CATEGORIES, Asked, ask, fulfilled, things_fulfilled
from pcm_ros.evidence import Document, Estimate, mean, paired, quantile, rate, run_bench
from pcm_ros.evidence.document import Record, content_digest
from pcm_ros.models.loading import load_safetensors
from pcm_ros.sim.pictures import pictures
from pcm_ros.tasks.image_generation import Picture, Request
from pcm_ros.tasks.image_generation.assembly import COUNT_OF, GUIDES, READERS, TOGETHER, painter
from pcm_ros.tasks.image_generation.painter import PUSH, check_push

GUIDANCE, ALL, EQUALLY, GRADIENT = "guidance", "ensemble", "equal-compute", "gradient"
EQUAL = 4
REFERENCE_WORLDS, REFERENCE_PICTURES, REFERENCE_SEED = 80, 6, 40_001
"""Pictures of a world share table and things: many worlds of few pictures say more than few of many."""
RESAMPLES = 2000
SHEET = 40  # prompts in the contact sheet
SHOWN = (GUIDANCE, ALL, EQUALLY)


class _Prepared:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.steps, self.guidance, self.count = int(config["steps"]), float(config["guidance"]), int(config["count"])
        self.experts, self.guides = tuple(config["experts"]), tuple(config["guides"])
        model = Path(config["model"]) if config["model"] else None
        self.plain, self.together = painter("guidance", model), painter("consensus", model, experts=self.experts)
        self.guided = {}
        if config["gradient"]:
            push = float(config["push"])
            self.guided[GRADIENT] = painter("gradient", model, experts=self.guides, push=push)
            if len(self.guides) > 1:
                self.guided |= {f"{GRADIENT}.{name}": painter("gradient", model, experts=(name,), push=push) for name in self.guides}
        self.gradient_prompts = int(config["gradient"])
        self.judge = PictureJudge()

    def request(self, asked: Asked, seed: int, steps: int, count: int) -> Request:
        return Request(asked.text, seed, steps, count, guidance=self.guidance)


def run_one(item: tuple[Asked, int], prepared: _Prepared) -> dict[str, Any]:
    """A prompt by all methods; `candidates`: what the ensemble chose from, best first, with what each expert said of it."""
    asked, number = item

    def told(image: npt.NDArray[np.uint8], made: Picture) -> dict[str, Any]:
        (found,) = prepared.judge.judge(image[None])
        return {
            "fulfilled": fulfilled(asked, found),
            "things": things_fulfilled(asked, found),
            "found": [asdict(thing) for thing in found],
            "seconds": made.seconds,
            "expert_seconds": dict(made.expert_seconds),
            "dropped": sorted(made.dropped),
            "picture": as_png(image),
        }

    results: dict[str, dict[str, Any]] = {}

    def painted(method: str, paint: Callable[[], Picture]) -> Picture | None:
        try:
            made = paint()
            results[method] = told(made.image, made)
        except Exception as error:
            results[method] = _failed(error)
            return None
        return made

    painted(GUIDANCE, lambda: prepared.plain.paint(prepared.request(asked, number, prepared.steps, 1)))
    agreed = painted(ALL, lambda: prepared.together.paint(prepared.request(asked, number, prepared.steps, prepared.count)))
    alone = prepared.experts if len(prepared.experts) > 1 else ()
    candidates: list[dict[str, Any]] = []
    if agreed is None:  # they would have chosen among the pictures that are not there
        results |= {name: dict(results[ALL]) for name in (*(f"expert.{name}" for name in alone), "any")}
    else:
        shown = [agreed.image, *agreed.others]
        energies = [agreed.energies, *agreed.energies_of_others]
        for name in alone:
            results[f"expert.{name}"] = told(shown[_choice(name, energies, agreed.order)], agreed)
        good = [fulfilled(asked, found) for found in prepared.judge.judge(np.stack(shown))]
        results["any"] = {"fulfilled": any(good)}
        rows = zip(good, energies, agreed.order, strict=True)
        candidates = [{"fulfilled": one, "energies": dict(energy), "noise": place} for one, energy, place in rows]
    if prepared.steps >= 2 * EQUAL:
        painted(EQUALLY, lambda: prepared.together.paint(prepared.request(asked, number, prepared.steps // EQUAL, EQUAL)))
    if number < prepared.gradient_prompts:
        for method, worker in prepared.guided.items():
            painted(method, functools.partial(worker.paint, prepared.request(asked, number, prepared.steps, 1)))
    return {"prompt": asked.text, "category": asked.category, "methods": results, "candidates": candidates}


def _failed(error: Exception) -> dict[str, Any]:
    """What a method's record says that raised: its prompt is not fulfilled."""
    return {"fulfilled": False, "things": False, "error": f"{type(error).__name__}: {error}"}


def _choice(name: str, energies: Sequence[Mapping[str, float]], order: Sequence[int]) -> int:
    """Row of the picture that an expert alone likes best. Rows are in the ensemble's order: equals go by the order of the noise, and so do
    all where the expert did not answer, or it would borrow the ensemble's choice."""
    return min(range(len(energies)), key=lambda row: (energies[row].get(name, np.inf), order[row]))


def as_png(image: npt.NDArray[np.uint8]) -> str:
    """Base64 of a PNG of (H, W, 3) RGB."""
    return base64.b64encode(cv2.imencode(".png", image[..., ::-1])[1].tobytes()).decode()


def from_png(text: str) -> npt.NDArray[np.uint8]:
    """The inverse of `as_png`."""
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("a record holds a picture that is no PNG")
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8)


def reference(
    worlds: int = REFERENCE_WORLDS, pictures_each: int = REFERENCE_PICTURES
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(N, 64, 64, 3) renders of held-out sets of things, and (N,) the world of each."""
    client = pybullet.connect(pybullet.DIRECT)
    try:
        rows = [
            rgb for world in range(worlds) for rgb, _ in itertools.islice(pictures(client, REFERENCE_SEED, world, "test"), pictures_each)
        ]
    finally:
        pybullet.disconnect(client)
    return np.stack(rows), np.repeat(np.arange(worlds), pictures_each)


@functools.cache
def _judge_tower() -> nn.Module:
    network = JudgeNetwork()
    network.load_state_dict({name: tensor.float() for name, tensor in load_safetensors(JUDGE).items()})
    return network.eval().tower


@torch.inference_mode()
def features(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(N, D) means over the cells of the judge's tower, of pictures (N, H, W, 3)."""
    parts = []
    for start in range(0, len(images), 64):
        x = torch.from_numpy(np.ascontiguousarray(images[start : start + 64])).permute(0, 3, 1, 2).float() / 127.5 - 1
        if x.shape[-2:] != (SIZE, SIZE):
            x = functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
        parts.append(_judge_tower()(x).mean(dim=(2, 3)))
    return np.asarray(torch.cat(parts).double().numpy())


@functools.cache
def _reference_features() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(N, D) features of the reference, and (N,) the world of each. Takes some 15 s: once a process."""
    rows, worlds = reference()
    return features(rows), worlds


@dataclass(frozen=True)
class Kernels:
    """Means of kernels that make up the KID of n painted pictures to W worlds of renders.

    Attributes:
        within: (n, n) of painted pictures. across: (n, W) of a painted picture and the renders of a world.
        reference: (W, W) of the renders of two worlds.
    """

    within: npt.NDArray[np.float64]
    across: npt.NDArray[np.float64]
    reference: npt.NDArray[np.float64]

    def distances(self, prompts: npt.NDArray[np.float64], worlds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(B,) KIDs of samples in which each prompt (B, n) and each world (B, W) is so many times.

        Pairs of a thing with itself take no part: pictures with themselves, and, as they share table and things, renders of one world.
        """
        across = ((prompts @ self.across) * worlds).sum(axis=1) / (prompts.sum(axis=1) * worlds.sum(axis=1))
        return np.asarray(_mean_of_pairs(self.within, prompts) + _mean_of_pairs(self.reference, worlds) - 2 * across)


def _mean_of_pairs(gram: npt.NDArray[np.float64], times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(B,) means of (K, K) over pairs of different rows, each row so many times (B, K). NaN: there is no pair."""
    others = gram - np.diag(np.diag(gram))
    pairs = times.sum(axis=1) ** 2 - (times**2).sum(axis=1)
    total = ((times @ others) * times).sum(axis=1)
    return np.asarray(np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan))


def kernels(painted: npt.NDArray[np.float64], real: npt.NDArray[np.float64], worlds: npt.NDArray[np.int64]) -> Kernels:
    """Of features (n, D) and (N, D), whose worlds are (N,), under the kernel (x y / D + 1)^3. Features are scaled to a mean square of one
    over the real ones, so that no term of the kernel rules."""
    scale = np.sqrt((real**2).mean() * real.shape[1])
    painted, real = painted / scale, real / scale
    names = np.unique(worlds)
    member = (worlds[:, None] == names[None]) / (worlds[:, None] == names[None]).sum(axis=0)  # (N, W), columns sum up to one
    within, across, reference = (((one @ other.T) + 1) ** 3 for one, other in ((painted, painted), (painted, real), (real, real)))
    return Kernels(within, across @ member, member.T @ reference @ member)


def kernel_distance(painted: npt.NDArray[np.float64], real: npt.NDArray[np.float64], worlds: npt.NDArray[np.int64]) -> float:
    """KID: unbiased squared maximum mean discrepancy of features (n, D) of independent pictures and (N, D) of independent worlds (N,)."""
    made = kernels(painted, real, worlds)
    return float(made.distances(np.ones((1, len(made.within))), np.ones((1, len(made.reference))))[0])


def _interval(n: int, worlds: int, statistic: Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], Any], seed: int = 0) -> Estimate:
    """Of a statistic of how often n prompts and how often the worlds are in a sample: bootstrap of both together."""
    value = float(statistic(np.ones((1, n)), np.ones((1, worlds)))[0])
    rng = np.random.default_rng(seed)
    prompts, others = (rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64) for count in (n, worlds))
    low, high = np.nanquantile(statistic(prompts, others), [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


def _looks(painted: Mapping[str, Mapping[str, npt.NDArray[np.uint8]]]) -> dict[str, Estimate]:
    """`METHOD.kid` and `METHOD.minus.guidance.kid`, the latter over the prompts of both, of method -> prompt -> picture."""
    real, worlds = _reference_features()
    found: dict[str, Estimate] = {}
    vectors = {name: dict(zip(rows, features(np.stack(list(rows.values()))), strict=True)) for name, rows in painted.items() if rows}
    for name, rows in vectors.items():
        if len(rows) > 1:
            own = kernels(np.stack(list(rows.values())), real, worlds)
            found[f"{name}.kid"] = _interval(len(own.within), len(own.reference), own.distances)
        both = [key for key in rows if key in vectors.get(GUIDANCE, {})]
        if name != GUIDANCE and len(both) > 1:
            one, other = (kernels(np.stack([vectors[method][key] for key in both]), real, worlds) for method in (name, GUIDANCE))

            def difference(
                prompts: npt.NDArray[np.float64], others: npt.NDArray[np.float64], one: Kernels = one, other: Kernels = other
            ) -> npt.NDArray[np.float64]:
                return one.distances(prompts, others) - other.distances(prompts, others)

            found[f"{name}.minus.{GUIDANCE}.kid"] = _interval(len(both), len(one.reference), difference)
    return found


def summarise(records: Sequence[Record], gradient: int = 0) -> dict[str, Estimate]:
    """Shares of prompts fulfilled: `METHOD`, `METHOD.CATEGORY`, `METHOD.things` (relations left aside); `any`: by at least one of the
    pictures that the ensemble chose from; paired differences; `METHOD.kid`, `METHOD.minus.guidance.kid`; seconds. A prompt that raised, as
    a whole or in a method, is not fulfilled; `failures` is the share of them; distances and seconds are of the pictures that are there.

    Args:
        records: all, in the order of the prompts. gradient: so many of the first ones were to be painted by the gradient methods.
    """
    done = [record for record in records if "error" not in record]
    results: dict[str, Estimate] = {}
    if not done:
        return results
    names = list(dict.fromkeys(name for record in done for name in record["methods"]))
    # method -> prompt -> what became of it; nothing where the whole record is an error, of any method that was to paint this prompt
    made: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in names}
    category: dict[str, str] = {}
    for place, record in enumerate(records):
        key = str(record["id"])
        category[key] = str(record.get("category", CATEGORIES[place % len(CATEGORIES)]))  # they take turns, see `ask`
        for name in names:
            if "error" not in record and name in record["methods"]:
                made[name][key] = record["methods"][name]
            elif "error" in record and (place < gradient or not name.startswith(GRADIENT)):
                made[name][key] = {}
    good = {name: {key: bool(one.get("fulfilled", False)) for key, one in made[name].items()} for name in names}
    for name in names:
        results[name] = rate(list(good[name].values()))
        for kind in CATEGORIES:
            if picked := [one for key, one in good[name].items() if category[key] == kind]:
                results[f"{name}.{kind}"] = rate(picked)
    single = [name for name in names if name.startswith("expert.") and name != f"expert.{TOGETHER}"]
    alone = [name for name in names if name.startswith(f"{GRADIENT}.")]
    compared = {
        f"{ALL}.minus.{GUIDANCE}": (ALL, GUIDANCE),
        f"{ALL}.minus.best_expert": (ALL, max(single, key=lambda name: results[name].value, default="")),
        f"{EQUALLY}.minus.{GUIDANCE}": (EQUALLY, GUIDANCE),
        f"{GRADIENT}.minus.{GUIDANCE}": (GRADIENT, GUIDANCE),
        f"{GRADIENT}.minus.best_alone": (GRADIENT, max(alone, key=lambda name: results[name].value, default="")),
    }
    for label, (one, other) in compared.items():
        if one in good and other in good:
            both = good[one].keys() & good[other].keys()
            pair = paired({key: good[one][key] for key in both}, {key: good[other][key] for key in both})
            results[label] = pair.difference
            results[f"{label}.p"] = Estimate(pair.p_value, float("nan"), float("nan"), len(both))
    for name in names:
        if name == "any":
            continue
        results[f"{name}.things"] = rate([bool(one.get("things", False)) for one in made[name].values()])
        worked = [one for one in made[name].values() if "picture" in one]
        if worked and not name.startswith("expert."):
            seconds = [float(one["seconds"]) for one in worked]
            results[f"{name}.seconds"] = mean(seconds)
            results[f"{name}.seconds.median"] = quantile(seconds, 0.5)
        if name == GRADIENT:
            for expert in sorted({key for one in worked for key in one["expert_seconds"]}):
                results[f"{name}.seconds_per_step.{expert}"] = mean([float(one["expert_seconds"].get(expert, 0.0)) for one in worked])
    results["failures"] = rate(["error" in record or any("error" in one for one in record["methods"].values()) for record in records])
    return results | _looks(
        {name: {key: from_png(one["picture"]) for key, one in made[name].items() if "picture" in one} for name in names}
    )


def bench(
    json_path: Path,
    *,
    prompts: int = 200,
    seed: int = 1000,
    steps: int = 40,
    guidance: float = 4.0,
    count: int = COUNT_OF["consensus"],
    experts: Sequence[str] = READERS,
    gradient: int = 40,
    guides: Sequence[str] = GUIDES,
    push: float = PUSH,
    model: Path | None = None,
    jobs: int = 1,
    fresh: bool = False,
) -> Document:
    """`prompts` held-out prompts; see above.

    Args:
        gradient: so many of them by the gradient methods too.

    Raises:
        ValueError: an argument out of its range, or an unknown expert.
    """
    for name, value, least in (("prompts", prompts, 2), ("seed", seed, 0), ("gradient", gradient, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; allowed: >= {least}")
    for name, chosen, known in (("experts", experts, READERS), ("guides", guides, GUIDES)):
        if not chosen or set(chosen) - set(known) or len(set(chosen)) < len(chosen):
            raise ValueError(f"{name} are {list(chosen)}; allowed: at least one of {', '.join(known)}, each once")
    check_push(push)
    for asked in (1, count):  # what a request refuses would fail with each prompt
        Request(ask(seed, 0).text, 0, steps, asked, guidance=guidance)
    config = {
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "count": count,
        "experts": list(experts),
        "gradient": gradient,
        "guides": list(guides),
        "push": push,
        "model": model,
        "contents": "" if model is None else content_digest(model),
    }
    items = {f"prompt-{seed}-{number:04d}": (ask(seed, number), number) for number in range(prompts)}
    summary = functools.partial(summarise, gradient=gradient)
    return run_bench("image", config, items, run_one, summary, json_path, prepare=_Prepared, jobs=jobs, fresh=fresh, headline=_headline)


def _headline(records: Sequence[Record]) -> str:
    done = [record["methods"] for record in records if "error" not in record]
    return f"guidance {sum(m[GUIDANCE]['fulfilled'] for m in done)}, ensemble {sum(m[ALL]['fulfilled'] for m in done)} of {len(records)}"


def contact_sheet(records: Sequence[Record], side: int = 96) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB: prompts by row, methods by column; a green bar below = fulfilled, red = not; a gray cell: the method raised."""
    rows = []
    for record in [record for record in records if "error" not in record][:SHEET]:
        cells = []
        for made in [record["methods"][name] for name in SHOWN if name in record["methods"]]:
            cell = np.full((side, side, 3), 128, dtype=np.uint8)
            if "picture" in made:
                cell = cv2.resize(from_png(made["picture"]), (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
            bar = np.full((5, side, 3), (40, 160, 60) if made["fulfilled"] else (190, 50, 40), dtype=np.uint8)
            cells.append(np.concatenate([cell, bar]))
        strip = np.concatenate(cells, axis=1)
        label = np.full((16, strip.shape[1], 3), 255, dtype=np.uint8)
        cv2.putText(label, record["prompt"], (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (20, 20, 20), 1, cv2.LINE_AA)
        rows.append(np.concatenate([label, strip]))
    if not rows:
        raise ValueError("no record holds pictures")
    return np.concatenate(rows).astype(np.uint8)


def figures(records: Sequence[Record]) -> dict[str, str]:
    """The contact sheet, for the report: title -> data URI."""
    done = [record for record in records if "error" not in record]
    if not done:
        return {}
    methods = ", ".join(name for name in SHOWN if name in done[0]["methods"])
    return {f"left to right: {methods}": f"data:image/png;base64,{as_png(contact_sheet(done))}"}
