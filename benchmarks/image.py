"""Pictures of prompts that were held out: does an ensemble of experts put more of a prompt into the picture than guidance alone?

A detector that no expert uses reads each picture (`picture_judge`); a prompt is fulfilled if exactly the things that it names are there and
stand as it says. Methods, all from the same noise:

- guidance: classifier-free guidance alone, one picture
- ensemble: the experts agree on one of `count` pictures
- expert.NAME: that expert alone chooses among the same pictures; "names" is the product of several models, and not among the single ones
  with which the ensemble is compared
- equal-compute: the ensemble agrees on one of EQUAL pictures of `steps / EQUAL` steps each: no more denoising than for guidance's one
- gradient: all experts that are differentiable guide each step of one picture (the paper's way); gradient.NAME: one of them alone. These
  are slow, and are compared with guidance on the first prompts only.

Besides, how much the pictures look like renders of the simulator: KID and FID on the pooled features of EfficientNet-Lite0 (Binkowski et
al., arXiv 1801.01401; Heusel et al., arXiv 1706.08500), lower is better; FID of few pictures is biased upwards, so it only compares methods
of one run.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pybullet
import torch
from torch.nn import functional

from pcm_ros.benchmarks.picture_judge import PictureJudge
from pcm_ros.benchmarks.picture_prompts import CATEGORIES, Asked, ask, fulfilled, things_fulfilled
from pcm_ros.evidence import Document, Estimate, mean, paired, quantile, rate, run_bench
from pcm_ros.evidence.document import Record, content_digest
from pcm_ros.models.embedded import embedded_image_tower
from pcm_ros.models.image_tower import SIZE, ImageTower
from pcm_ros.sim.pictures import PICTURES_A_WORLD, pictures
from pcm_ros.tasks.image_generation import Picture, Request
from pcm_ros.tasks.image_generation.assembly import COUNT_OF, GUIDES, READERS, TOGETHER, painter
from pcm_ros.tasks.image_generation.painter import PUSH

GUIDANCE, ALL, EQUALLY, GRADIENT = "guidance", "ensemble", "equal-compute", "gradient"
EQUAL = 4
REFERENCE_WORLDS, REFERENCE_SEED = 20, 40_001
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

    plain = prepared.plain.paint(prepared.request(asked, number, prepared.steps, 1))
    agreed = prepared.together.paint(prepared.request(asked, number, prepared.steps, prepared.count))
    results = {GUIDANCE: told(plain.image, plain), ALL: told(agreed.image, agreed)}
    shown = [agreed.image, *agreed.others]
    energies = [agreed.energies, *agreed.energies_of_others]
    for name in prepared.experts:
        if len(prepared.experts) > 1:
            best = min(range(len(shown)), key=lambda row: energies[row].get(name, np.inf))
            results[f"expert.{name}"] = told(shown[best], agreed)
    good = [fulfilled(asked, found) for found in prepared.judge.judge(np.stack(shown))]
    results["any"] = {"fulfilled": any(good)}
    candidates = [{"fulfilled": one, "energies": dict(energy)} for one, energy in zip(good, energies, strict=True)]
    if prepared.steps >= 2 * EQUAL:
        equal = prepared.together.paint(prepared.request(asked, number, prepared.steps // EQUAL, EQUAL))
        results[EQUALLY] = told(equal.image, equal)
    if number < prepared.gradient_prompts:
        for method, worker in prepared.guided.items():
            made = worker.paint(prepared.request(asked, number, prepared.steps, 1))
            results[method] = told(made.image, made)
    return {"prompt": asked.text, "category": asked.category, "methods": results, "candidates": candidates}


def as_png(image: npt.NDArray[np.uint8]) -> str:
    """Base64 of a PNG of (H, W, 3) RGB."""
    return base64.b64encode(cv2.imencode(".png", image[..., ::-1])[1].tobytes()).decode()


def from_png(text: str) -> npt.NDArray[np.uint8]:
    """The inverse of `as_png`."""
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("a record holds a picture that is no PNG")
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8)


def reference(worlds: int = REFERENCE_WORLDS) -> npt.NDArray[np.uint8]:
    """(N, 64, 64, 3) renders of held-out sets of things."""
    client = pybullet.connect(pybullet.DIRECT)
    try:
        rows = [rgb for world in range(worlds) for rgb, _ in pictures(client, REFERENCE_SEED, world, "test")]
    finally:
        pybullet.disconnect(client)
    assert len(rows) == worlds * PICTURES_A_WORLD
    return np.stack(rows)


@torch.inference_mode()
def features(tower: ImageTower, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(N, D) pooled features of pictures (N, H, W, 3)."""
    weights = torch.ones(1, 1, SIZE, SIZE)
    parts = []
    for start in range(0, len(images), 32):
        x = torch.from_numpy(images[start : start + 32]).permute(0, 3, 1, 2).float()
        x = (functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True) - 127) / 128
        parts.append(tower.differentiable_features(x, weights.expand(len(x), 1, -1, -1)).flatten(1))
    return torch.cat(parts).double().numpy()


def kernel_distance(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """KID: unbiased squared maximum mean discrepancy of features (N, D) and (M, D) under the kernel (x y / D + 1)^3."""
    size = first.shape[1]
    within = [((part @ part.T) / size + 1) ** 3 for part in (first, second)]
    across = ((first @ second.T) / size + 1) ** 3
    means = [(gram.sum() - np.trace(gram)) / (len(gram) * (len(gram) - 1)) for gram in within]
    return float(means[0] + means[1] - 2 * across.mean())


def frechet_distance(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """FID: squared distance of two normal distributions fitted to features (N, D) and (M, D)."""
    centred = [part - part.mean(axis=0) for part in (first, second)]
    scaled = [part / np.sqrt(len(part) - 1) for part in centred]
    # trace of the root of S1 S2 = sum of the singular values of A B^T, where S1 = A^T A and S2 = B^T B; triangles serve as A and B, so that
    # many pictures cost no more than many features
    triangles = [np.asarray(np.linalg.qr(part, mode="r")) for part in scaled]
    roots = np.linalg.svd(triangles[0] @ triangles[1].T, compute_uv=False).sum()
    gap = first.mean(axis=0) - second.mean(axis=0)
    return float(gap @ gap + (scaled[0] ** 2).sum() + (scaled[1] ** 2).sum() - 2 * roots)


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Shares of prompts fulfilled: `METHOD`, `METHOD.CATEGORY`, `METHOD.things` (relations left aside); `any`: by at least one of the
    pictures that the ensemble chose from; paired differences; `METHOD.kid`, `METHOD.fid`; seconds. Prompts that raised are not fulfilled;
    categories, distances and seconds are of the others."""
    done = [record for record in records if "error" not in record]
    results: dict[str, Estimate] = {}
    if not done:
        return results
    rows = {name: [record for record in done if name in record["methods"]] for record in done for name in record["methods"]}
    good = {name: {str(record["id"]): bool(record["methods"][name]["fulfilled"]) for record in rows[name]} for name in rows}
    for record in records:
        if "error" in record:  # no picture: the prompt is not fulfilled, by any method that was to paint all
            for name in good:
                if not name.startswith(GRADIENT):
                    good[name][str(record["id"])] = False
    for name in rows:
        results[name] = rate(list(good[name].values()))
        for category in CATEGORIES:
            if picked := [good[name][str(record["id"])] for record in rows[name] if record["category"] == category]:
                results[f"{name}.{category}"] = rate(picked)
    single = [name for name in rows if name.startswith("expert.") and name != f"expert.{TOGETHER}"]
    alone = [name for name in rows if name.startswith(f"{GRADIENT}.")]
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
    tower = embedded_image_tower()
    real = features(tower, reference())
    for name in rows:
        methods = [record["methods"][name] for record in rows[name]]
        if "picture" not in methods[0]:
            continue
        results[f"{name}.things"] = rate([bool(made["things"]) for made in methods])
        painted = features(tower, np.stack([from_png(made["picture"]) for made in methods]))
        if len(painted) > 1:
            results[f"{name}.kid"] = _unknown(kernel_distance(painted, real), len(painted))
            results[f"{name}.fid"] = _unknown(frechet_distance(painted, real), len(painted))
        if not name.startswith("expert."):
            seconds = [float(made["seconds"]) for made in methods]
            results[f"{name}.seconds"] = mean(seconds)
            results[f"{name}.seconds.median"] = quantile(seconds, 0.5)
        if name == GRADIENT:
            for expert in sorted({key for made in methods for key in made["expert_seconds"]}):
                results[f"{name}.seconds_per_step.{expert}"] = mean([float(made["expert_seconds"].get(expert, 0.0)) for made in methods])
    return results


def _unknown(value: float, count: int) -> Estimate:
    return Estimate(value, float("nan"), float("nan"), count)


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
    for name, value, least in (("prompts", prompts, 2), ("count", count, 1), ("gradient", gradient, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; allowed: >= {least}")
    for name, chosen, known in (("experts", experts, READERS), ("guides", guides, GUIDES)):
        if not chosen or set(chosen) - set(known):
            raise ValueError(f"{name} are {list(chosen)}; allowed: at least one of {', '.join(known)}")
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
    return run_bench("image", config, items, run_one, summarise, json_path, prepare=_Prepared, jobs=jobs, fresh=fresh, headline=_headline)


def _headline(records: Sequence[Record]) -> str:
    done = [record["methods"] for record in records if "error" not in record]
    return f"guidance {sum(m[GUIDANCE]['fulfilled'] for m in done)}, ensemble {sum(m[ALL]['fulfilled'] for m in done)} of {len(done)}"


def contact_sheet(records: Sequence[Record], side: int = 96) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB: prompts by row, methods by column; a green bar below = fulfilled, red = not."""
    rows = []
    for record in [record for record in records if "error" not in record][:SHEET]:
        cells = []
        for made in [record["methods"][name] for name in SHOWN if name in record["methods"]]:
            cell = cv2.resize(from_png(made["picture"]), (side, side), interpolation=cv2.INTER_CUBIC)
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
