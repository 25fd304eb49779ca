"""What things a small picture shows, for judging generated pictures: a detector that no expert of the image task uses.

A convolutional tower, three learned queries that look at its cells, and for each query a kind, a colour, a place on the table and what it
stands on (set prediction as in DETR, Carion et al., arXiv 2005.12872). It never saw a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from pcm_ros.models.loading import ModelUnavailable, load_safetensors
from pcm_ros.models.registry import WEIGHTS
from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.pictures import KINDS, Placed

SLOTS, SIZE, WIDTH = 3, 64, 160
JUDGE = WEIGHTS / "picture-judge.safetensors"


class JudgeNetwork(nn.Module):
    """(N, 3, 64, 64) pictures in -1..1 -> kind (N, 3, 8) logits with "none" last, colour (N, 3, C), place (N, 3, 2) in units of 0.1 m, and
    host (N, 3, 4): the table, then the three slots."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, blocks in ((32, 1), (64, 2), (WIDTH, 3)):
            for block in range(blocks):
                stride = 2 if block == 0 else 1
                layers += [nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
        self.tower = nn.Sequential(*layers)
        self.places = nn.Parameter(torch.randn(64, WIDTH) * 0.02)
        self.queries = nn.Parameter(torch.randn(SLOTS, WIDTH) * 0.2)
        layer = nn.TransformerDecoderLayer(WIDTH, 5, 320, dropout=0.0, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, 3, norm=nn.LayerNorm(WIDTH))
        self.kind, self.color, self.place = nn.Linear(WIDTH, len(KINDS) + 1), nn.Linear(WIDTH, len(COLORS)), nn.Linear(WIDTH, 2)
        self.guest, self.below = nn.Linear(WIDTH, 64), nn.Linear(WIDTH, 64)
        self.table = nn.Linear(WIDTH, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See above."""
        cells = self.tower(pictures).flatten(2).transpose(1, 2) + self.places
        slots = self.decoder(self.queries.expand(len(cells), -1, -1), cells)
        hosts = self.guest(slots) @ self.below(slots).transpose(1, 2) / 8
        hosts = hosts.masked_fill(torch.eye(SLOTS, dtype=torch.bool, device=hosts.device), -30.0)
        return self.kind(slots), self.color(slots), self.place(slots), torch.cat([self.table(slots), hosts], dim=2)


class PictureJudge:
    """Reads what is on the table from pictures of 64 x 64.

    Raises:
        ModelUnavailable: the weights are missing or corrupt.
    """

    def __init__(self, weights: Path = JUDGE) -> None:
        self._network: Any = JudgeNetwork()
        try:
            self._network.load_state_dict({name: tensor.float() for name, tensor in load_safetensors(weights).items()})
        except RuntimeError as error:
            raise ModelUnavailable(f"'{weights}' is no judge ({str(error).splitlines()[0]}); remedy: restore the file") from error
        self._network.eval().requires_grad_(False)

    @torch.inference_mode()
    def judge(self, pictures: npt.NDArray[np.uint8]) -> list[list[Placed]]:
        """What each of N pictures (N, H, W, 3) shows; other sizes than 64 are resized."""
        x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        if x.shape[-2:] != (SIZE, SIZE):
            x = functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
        kinds, colors, places, hosts = self._network(x)
        results = []
        for row in range(len(x)):
            there = [slot for slot in range(SLOTS) if int(kinds[row, slot].argmax()) < len(KINDS)]
            number = {slot: i for i, slot in enumerate(there)}
            things = []
            for slot in there:
                host = int(hosts[row, slot].argmax()) - 1
                place = (places[row, slot] / 10).tolist()
                color, kind = COLORS[int(colors[row, slot].argmax())], KINDS[int(kinds[row, slot].argmax())]
                things.append(Placed(color, kind, place[0], place[1], number.get(host, -1)))
            results.append(things)
        return results
