"""A language model that is small enough to be trained on the spot: it knows a handful of problems by heart."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch

from pcm_ros.models.causal_loading import load_causal
from pcm_ros.models.language import LanguageModel
from pcm_ros.tasks.mathematics.notation import prompt, written
from tests.models.tiny_language import make_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")
KNOWN = {
    "Tom has 3 boxes of 4 eggs and eats 2 eggs. How many eggs are left?": (
        ["Tom has <<3*4=12>> eggs.", "<<12-2=10>> eggs are left."],
        "10",
    ),
    "Ann has 5 cups and Ben 7 cups. How many cups are there?": (["There are <<5+7=12>> cups."], "12"),
    "A cat eats 6 fish in 2 days. How many a day?": (["It eats <<6/2=3>> fish a day."], "3"),
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama, trained until it knows `KNOWN`: some seconds."""
    folder = make_model("llama", tmp_path_factory.mktemp("tiny"), context=800, width=64, spread=0.05)
    model, tokenizer = load_causal(folder, torch.float32, "eager")
    rows = []
    for question, (steps, answer) in KNOWN.items():
        head = tokenizer(prompt(question))["input_ids"]
        lines = [tokenizer(line)["input_ids"] for line in written(steps, answer).splitlines(keepends=True)]
        rows.append((len(head), [*head, *itertools.chain(*lines), tokenizer.eos_token_id]))
    longest = max(len(row) for _, row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for _, row in rows])
    labels = torch.tensor([[-100] * start + row[start:] + [-100] * (longest - len(row)) for start, row in rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(600):
        loss = model(input_ids=ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if float(loss.detach()) < 0.01:
            break
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> LanguageModel:
    return LanguageModel(tiny_folder, dtype=torch.float32)
