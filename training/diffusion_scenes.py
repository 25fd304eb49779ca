"""Render pictures of one to three things on a table: the training data of the diffusion model and of what judges its pictures.

    python -m training.diffusion_scenes --out training/diffusion_data --pictures 36000 --seed 1

Things that are made once serve PICTURES_A_WORLD pictures with new places and colours (`pcm_ros.sim.pictures`). Each shard is a safetensors
file: rgb (N, 64, 64, 3) uint8; truth (N, 3, 5) float32: kind, colour, x, y, host, kind -1 = none. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pybullet
from safetensors.numpy import save_file

from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.pictures import KINDS, MOST_OBJECTS, PICTURES_A_WORLD, Placed, pictures


def as_truth(things: Sequence[Placed]) -> npt.NDArray[np.float32]:
    """(3, 5) of the things of a picture; see above."""
    truth = np.full((MOST_OBJECTS, 5), -1, dtype=np.float32)
    for row, thing in enumerate(things):
        truth[row] = (KINDS.index(thing.kind), COLORS.index(thing.color), thing.x, thing.y, thing.host)
    return truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("training/diffusion_data"))
    parser.add_argument("--pictures", type=int, default=30000, help="rounded up to whole shards")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("train", "test"), default="train", help="test: held-out pairs, sets and shades")
    parser.add_argument("--worlds", type=int, default=50, help=f"worlds a shard, {PICTURES_A_WORLD} pictures each")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    shards = -(-options.pictures // (options.worlds * PICTURES_A_WORLD))
    start, made = time.time(), 0
    for shard in range(shards):
        path = options.out / f"{options.split}-{options.seed:03d}-{shard:04d}.safetensors"
        if path.exists():
            continue
        client = pybullet.connect(pybullet.DIRECT)  # a fresh one: textures of old worlds are not freed otherwise
        rows = [
            row
            for world in range(shard * options.worlds, (shard + 1) * options.worlds)
            for row in pictures(client, options.seed, world, options.split)
        ]
        pybullet.disconnect(client)
        part = path.with_suffix(".part")
        save_file({"rgb": np.stack([rgb for rgb, _ in rows]), "truth": np.stack([as_truth(things) for _, things in rows])}, part)
        part.rename(path)
        made += len(rows)
        print(f"{path.name}: {len(rows)} pictures, {made / (time.time() - start):.1f} pictures/s", flush=True)


if __name__ == "__main__":
    main()
