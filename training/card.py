"""Model cards: what a weight file is, how it was made, what it can do and what not. Written by the training scripts beside the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DATA = (
    "Pictures rendered by PyBullet's TinyRenderer (training/render_scenes.py): random tables, floors, lights, cameras, 2-9 objects of few "
    "colours and few kinds each, some on or in others, sometimes a robot arm. XKCD shades of the test split and nine colour + kind "
    "pairs are left out."
)
LIMITS = (
    "Knows mugs, bowls, blocks, cans, bottles, plates, ducks and odd toys of 12 colours in rendered scenes; other kinds get whatever looks "
    "nearest. Photographs were never seen. Sizes and materials are not understood."
)


def write_card(
    weights: Path,
    role: str,
    architecture: str,
    command: str,
    figures: dict[str, Any],
    training: dict[str, Any],
    data: str = DATA,
    limits: str = LIMITS,
) -> Path:
    """Write `<stem>.card.json` beside a weight file and return its path.

    Args:
        figures: held-out figures, as the training script's evaluation gives them.
        training: pictures, minutes, seed, ...
        data, limits: what it learnt from, and what it cannot do.
    """
    card = {
        "name": weights.stem,
        "role": role,
        "architecture": architecture,
        "licence": "Apache-2.0",
        "data": data,
        "command": command,
        "training": training,
        "held_out": figures,
        "limits": limits,
        "bytes": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    path = weights.with_name(weights.stem + ".card.json")
    path.write_text(json.dumps(card, indent=1) + "\n")
    return path
