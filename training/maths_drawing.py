"""Draw whole solutions of many problems at once: R rows that are filled again with the next problems as they end.

All rows write into the same column of one preallocated cache of keys and values, each from its own first column on, so a step moves
nothing. While the accelerator computes a step, the processor reads the tokens of the step before: which rows have ended, and which opened
an equation whose result the calculator writes.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pcm_ros.models.eight_bit_linear import EightBitLinear
from pcm_ros.models.language import inverted
from pcm_ros.tasks.mathematics.equations import calculator
from pcm_ros.tasks.mathematics.notation import ANSWER

MOST_STEPS = 10  # lines before the answer's, where nothing else is said
LONGEST_STEP = 64  # tokens of a line
HIDDEN = -30_000.0  # added to the logits of columns that a row must not see; exp of it is 0, and no sum with it overflows
TOGETHER = 128  # prompts that are read together
SPARE = 96  # columns beyond the longest text: after so many steps at the least, the cache's content is moved to its beginning


Linear = Callable[[Tensor], Tensor]


def _linear(layers: Sequence[nn.Linear], largest: Mapping[str, Tensor] | None, name: str) -> Linear:
    """Layers with the same input as one; name: under which the largest values of that are known."""
    if largest is not None:
        return EightBitLinear(layers, largest[name])
    weight = torch.cat([layer.weight.detach() for layer in layers])
    return lambda x: functional.linear(x, weight)


class Decoder:
    """The forward pass of a Llama for drawing, in few large operations: the same numbers as transformers' but for rounding.

    Args:
        model: of transformers, on its device, in its type. longest: positions at most.
        largest: `Inputs.largest` of the model on a typical text, to compute in eight-bit integers; None = in its type.

    Raises:
        ValueError: another architecture, or layers with biases.
    """

    def __init__(self, model: Any, longest: int, largest: Mapping[str, Tensor] | None = None) -> None:
        config, base = model.config, model.model
        if config.model_type != "llama" or any(name.endswith(".bias") for name, _ in model.named_parameters()):
            raise ValueError(f"the model is a {config.model_type}; allowed: a llama without biases")
        self.heads, self.groups = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.size = int(getattr(config, "head_dim", None) or config.hidden_size // self.heads)
        self.epsilon = float(config.rms_norm_eps)
        self.embedding = base.embed_tokens.weight.detach()
        self.output, self.norm = _linear([model.get_output_embeddings()], largest, "lm_head"), base.norm.weight.detach()
        self.layers = []
        for number, layer in enumerate(base.layers):
            attention, network, name = layer.self_attn, layer.mlp, f"model.layers.{number}."
            parts = (
                layer.input_layernorm.weight.detach(),
                _linear([attention.q_proj, attention.k_proj, attention.v_proj], largest, f"{name}self_attn.q_proj"),
                _linear([attention.o_proj], largest, f"{name}self_attn.o_proj"),
                layer.post_attention_layernorm.weight.detach(),
                _linear([network.gate_proj, network.up_proj], largest, f"{name}mlp.gate_proj"),
                _linear([network.down_proj], largest, f"{name}mlp.down_proj"),
            )
            self.layers.append(parts)
        self.device, self.dtype = self.embedding.device, self.embedding.dtype
        angles = torch.arange(longest, device=self.device)[:, None].float() * base.rotary_emb.inv_freq.to(self.device).float()
        scaling = float(getattr(base.rotary_emb, "attention_scaling", 1.0))
        cosine, sine = angles.cos() * scaling, angles.sin() * scaling
        self.cosine = torch.cat([cosine, cosine], dim=1).to(self.dtype)  # (longest, D)
        self.sine = torch.cat([-sine, sine], dim=1).to(self.dtype)

    def empty(self, rows: int, columns: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, (rows, G, columns, D) both."""
        shape = (rows, self.groups, columns, self.size)
        return [
            (torch.zeros(shape, dtype=self.dtype, device=self.device), torch.zeros(shape, dtype=self.dtype, device=self.device))
            for _ in self.layers
        ]

    def _projected(self, x: Tensor, weight: Linear, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, C) -> queries (B, T, H, D) and keys (B, T, G, D), turned by their positions, and values (B, T, G, D)."""
        batch, tokens = x.shape[:2]
        all_heads = weight(x).view(batch, tokens, self.heads + 2 * self.groups, self.size)
        turned = all_heads[:, :, : self.heads + self.groups]
        turned = torch.addcmul(turned * cosine, turned.roll(self.size // 2, dims=-1), sine)
        return turned[:, :, : self.heads], turned[:, :, self.heads :], all_heads[:, :, self.heads + self.groups :]

    def _network(self, x: Tensor, norm: Tensor, widen: Linear, narrow: Linear) -> Tensor:
        gate, up = widen(functional.rms_norm(x, norm.shape, norm, self.epsilon)).chunk(2, dim=-1)
        return x + narrow(functional.silu(gate) * up)

    def logits(self, x: Tensor) -> Tensor:
        """(B, C) last states before the last norm -> (B, V) float32."""
        return self.output(functional.rms_norm(x, self.norm.shape, self.norm, self.epsilon)).float()

    def read(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read texts padded on the left, (B, L) ids with (B,) lengths: logits (B, V) behind each, keys and values (B, G, L, D) by layer."""
        batch, longest = ids.shape
        columns = torch.arange(longest, device=self.device)
        first = longest - lengths
        positions = (columns - first[:, None]).clamp_min(0)
        seen = (columns >= first[:, None])[:, None, None, :] & (columns <= columns[:, None])
        mask = torch.zeros(batch, 1, longest, longest, dtype=self.dtype, device=self.device).masked_fill_(~seen, HIDDEN)
        cosine, sine = self.cosine[positions][:, :, None], self.sine[positions][:, :, None]
        x, kept = functional.embedding(ids, self.embedding), []
        repeats = self.heads // self.groups
        for norm, projections, out, norm2, widen, narrow in self.layers:
            query, key, value = self._projected(functional.rms_norm(x, norm.shape, norm, self.epsilon), projections, cosine, sine)
            key, value = key.transpose(1, 2).contiguous(), value.transpose(1, 2).contiguous()
            kept.append((key, value))
            mixed = functional.scaled_dot_product_attention(
                query.transpose(1, 2), key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1), attn_mask=mask
            )
            x = x + out(mixed.transpose(1, 2).reshape(batch, longest, -1))
            x = self._network(x, norm2, widen, narrow)
        return self.logits(x[:, -1]), kept

    def step(self, ids: Tensor, positions: Tensor, cache: list[tuple[Tensor, Tensor]], mask: Tensor, first: int, column: int) -> Tensor:
        """Read one token more in each row: logits (R, V).

        Args:
            ids, positions: (R,) of the new tokens. cache: their keys and values are written into this column.
            mask: (R, 1, 1, columns), added to the logits of attention. first: no row sees columns before it.
        """
        rows, until = len(ids), column + 1
        until += -(until - first) % 8  # aligned, as fused kernels want it; the mask hides what is too much
        until = min(until, mask.shape[-1])
        seen = mask[..., first:until]
        cosine, sine = self.cosine[positions][:, None, None], self.sine[positions][:, None, None]
        x = functional.embedding(ids, self.embedding)[:, None]
        repeats = self.heads // self.groups
        for (norm, projections, out, norm2, widen, narrow), (keys, values) in zip(self.layers, cache, strict=True):
            query, key, value = self._projected(functional.rms_norm(x, norm.shape, norm, self.epsilon), projections, cosine, sine)
            keys[:, :, column] = key[:, 0]
            values[:, :, column] = value[:, 0]
            # the query heads of a group ask the same keys: to the kernel they are tokens, so that no key is copied
            asked = query.reshape(rows, self.groups, repeats, self.size)
            mixed = functional.scaled_dot_product_attention(asked, keys[:, :, first:until], values[:, :, first:until], attn_mask=seen)
            x = x + out(mixed.reshape(rows, 1, -1))
            x = self._network(x, norm2, widen, narrow)
        return self.logits(x[:, 0])


@dataclass
class Solutions:
    """What was drawn for one problem: how often each text came, its log-likelihood (nats, temperature 1) and its tokens."""

    counts: Counter[str] = field(default_factory=Counter)
    scores: dict[str, tuple[float, int]] = field(default_factory=dict)


class Drawing:
    """Draws `count` solutions behind each prompt.

    A solution ends with the end token, behind the line "#### ...", with an empty line, after `lines` lines, or where a line or the
    whole becomes too long.

    Args:
        model: a Llama of transformers without adapters of its own, on its device. rows: solutions that are drawn at the same time.
        most: tokens of a solution. longest: tokens of a prompt.
        lines: of a solution at most; 1 = the next step is drawn. seed: of the only source of randomness. largest: see `Decoder`.

    Attributes:
        tokens: that were written so far (those of the calculator included). steps: of all rows.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        count: int,
        temperature: float,
        seed: int,
        rows: int = 1536,
        most: int = 320,
        longest: int = 240,
        lines: int = MOST_STEPS + 1,
        largest: Mapping[str, Tensor] | None = None,
    ) -> None:
        if not (count >= 1 and temperature > 0 and rows >= count and most >= 1):
            raise ValueError(f"count {count}, temperature {temperature}, rows {rows}, most {most}; allowed: >= 1, > 0, >= count, >= 1")
        longest = -(-longest // 8) * 8
        self.columns = -(-(longest + most + SPARE) // 8) * 8
        self.decoder = Decoder(model, longest + most + SPARE, largest)
        self.tokenizer, self.count, self.temperature, self.most, self.longest = tokenizer, count, temperature, most, longest
        self.rows, self.lines = rows // count * count, lines
        self.device = self.decoder.device
        self.random = torch.Generator(self.device).manual_seed(seed)
        pieces = [tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in range(len(tokenizer))]
        pieces += [""] * (len(self.decoder.embedding) - len(pieces))
        self._pieces = pieces
        self._opens = np.array([piece.endswith("=") for piece in pieces])
        self._breaks = np.array(["\n" in piece for piece in pieces])
        self._end = int(tokenizer.eos_token_id)
        self._encoded = functools.lru_cache(maxsize=100_000)(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
        self._result = functools.lru_cache(maxsize=100_000)(calculator)
        self.tokens, self.steps = 0, 0

    @torch.inference_mode()
    def draw(self, prompts: Sequence[Sequence[int]], deadline: float = float("inf")) -> Iterator[tuple[int, Solutions]]:
        """(number of the prompt, what was drawn) as problems are done; about in the order of the prompts, each of 1..longest token ids.

        Args:
            deadline: time.monotonic() at which it ends. Some time before it no prompt is begun any more; those that are not done at the
                deadline are left out.
        """
        if any(not 1 <= len(prompt) <= self.longest for prompt in prompts):
            raise ValueError(f"prompts have {min(map(len, prompts))}..{max(map(len, prompts))} tokens; allowed: 1..{self.longest}")
        device, rows = self.device, min(self.rows, len(prompts) * self.count)
        decoder = self.decoder
        cache = decoder.empty(rows, self.columns)
        columns = torch.arange(self.columns, device=device)
        # of the device: what is true of each row
        mask = torch.full((rows, 1, 1, self.columns), HIDDEN, dtype=decoder.dtype, device=device)
        positions = torch.zeros(rows, dtype=torch.int64, device=device)
        logits = torch.zeros(rows, len(decoder.embedding), device=device)
        # of the processor
        owner = np.full(rows, -1)  # number of the prompt; -1 = the row is free
        first = np.zeros(rows, dtype=np.int64)  # column of its first token
        written = np.zeros((rows, self.most), dtype=np.int64)
        likelihood = np.zeros(rows)
        length, line, lines = (np.zeros(rows, dtype=np.int64) for _ in range(3))  # tokens, where the line begins, whole lines
        forced, given, due = np.zeros((rows, 80), dtype=np.int64), np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        found: dict[int, tuple[Solutions, int]] = {}
        begun, column = 0, self.longest
        pinned = device.type == "cuda"
        started, steps_before = time.monotonic(), self.steps
        free = np.arange(rows)
        while True:
            now = time.monotonic()
            if now >= deadline:
                return
            pace = (now - started) / max(self.steps - steps_before, 1)
            if now + 0.8 * self.most * pace * (self.steps > steps_before + 20) >= deadline:
                begun = len(prompts)
            # 1. prompts into free rows
            while begun < len(prompts) and len(free) >= self.count:
                places = min(len(free) // self.count, TOGETHER, len(prompts) - begun)
                part = prompts[begun : begun + places]
                longest = -(-max(map(len, part)) // 8) * 8  # aligned
                padded = np.zeros((places, longest), dtype=np.int64)
                for row, prompt in enumerate(part):
                    padded[row, longest - len(prompt) :] = prompt
                sizes = np.array([len(prompt) for prompt in part])
                after, kept = decoder.read(torch.from_numpy(padded).to(device), torch.from_numpy(sizes).to(device))
                taken, free = free[: places * self.count], free[places * self.count :]
                source = torch.arange(places, device=device).repeat_interleave(self.count)
                target = torch.from_numpy(taken).to(device)
                for (keys, values), (new_keys, new_values) in zip(cache, kept, strict=True):
                    keys[target, :, column - longest : column] = new_keys[source]
                    values[target, :, column - longest : column] = new_values[source]
                logits[target] = after[source]
                numbers, lengths = np.repeat(np.arange(begun, begun + places), self.count), np.repeat(sizes, self.count)
                owner[taken], first[taken], length[taken], line[taken], lines[taken], likelihood[taken] = (
                    numbers, column - lengths, 0, 0, 0, 0.0,
                )  # fmt: skip
                given[taken] = due[taken] = 0
                starts = torch.from_numpy(first[taken]).to(device)[:, None]
                mask[target, 0, 0] = torch.where((columns >= starts) & (columns < column), 0.0, HIDDEN).to(decoder.dtype)
                positions[target] = torch.from_numpy(lengths).to(device)
                found |= {number: (Solutions(), 0) for number in range(begun, begun + places)}
                begun += places
            active = owner >= 0
            if not active.any():
                return
            # 2. the cache's content to its beginning, where the columns are used up
            if column == self.columns:
                least = min(int(first[active].min()), column - self.longest) // 8 * 8
                if least <= 0:
                    raise RuntimeError(f"texts of {self.columns} tokens; allowed: {self.longest} + {self.most}")
                for pair in cache:
                    for tensor in pair:
                        tensor[:, :, : column - least] = tensor[:, :, least:column].clone()
                mask[..., : column - least] = mask[..., least:].clone()
                mask[..., column - least :] = HIDDEN
                first -= least
                first[~active] = 0
                column -= least
            # 3. a token in each row
            shares = torch.softmax(logits / self.temperature, dim=-1)
            chosen = inverted(shares, torch.rand(len(owner), generator=self.random, device=device))
            del shares
            waiting = given < due
            if waiting.any():
                queue = np.where(waiting, forced[np.arange(len(owner)), np.minimum(given, forced.shape[1] - 1)], -1)
                ahead = torch.from_numpy(queue).to(device, non_blocking=True)
                chosen = torch.where(ahead >= 0, ahead, chosen)
                given += waiting
            score = logits.gather(1, chosen[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
            packed = torch.stack([chosen.float(), score])  # ids below 2**24 are exact
            host = torch.empty(packed.shape, pin_memory=pinned)
            host.copy_(packed, non_blocking=pinned)
            ready = torch.cuda.Event() if pinned else None
            if ready is not None:
                ready.record(torch.cuda.current_stream(device))
            # 4. which are read; meanwhile the processor looks at them
            mask[..., column] = 0
            place = positions.clamp_max(len(decoder.cosine) - 1)
            logits = decoder.step(chosen, place, cache, mask, int(first[active].min()) // 8 * 8, column)
            positions += 1
            column += 1
            self.steps += 1
            if ready is not None:
                ready.synchronize()
            tokens, gains = host[0].numpy().astype(np.int64), host[1].numpy()
            rows_active = np.flatnonzero(active)
            written[rows_active, length[rows_active]] = tokens[rows_active]
            length[rows_active] += 1
            likelihood[rows_active] += gains[rows_active]
            self.tokens += len(rows_active)
            over = (tokens == self._end) | (length >= self.most) | (length - line >= LONGEST_STEP)
            broken = np.flatnonzero(active & self._breaks[tokens])
            for row in broken.tolist():
                text = "".join(self._pieces[token] for token in written[row, line[row] : length[row]].tolist())
                line[row] = length[row]
                lines[row] += 1
                over[row] = text.startswith(ANSWER.strip()) or not text.strip() or lines[row] >= self.lines or length[row] >= self.most
            for row in np.flatnonzero(active & self._opens[tokens] & (given >= due) & ~over).tolist():
                text = "".join(self._pieces[token] for token in written[row, line[row] : length[row]].tolist())
                if (result := self._result(text)) is not None:
                    ids = self._encoded(result)[: forced.shape[1]]
                    forced[row, : len(ids)], given[row], due[row] = ids, 0, len(ids)
            ended = np.flatnonzero(active & over)
            if len(ended):
                texts = self.tokenizer.batch_decode(
                    [[token for token in written[row, : length[row]].tolist() if token != self._end] for row in ended.tolist()],
                    clean_up_tokenization_spaces=False,
                )
                for row, text in zip(ended.tolist(), texts, strict=True):
                    number = int(owner[row])
                    solutions, done = found[number]
                    text = "\n".join(part for part in text.strip().split("\n") if part.strip())
                    solutions.counts[text] += 1
                    solutions.scores[text] = float(likelihood[row]), int(length[row])
                    found[number] = solutions, done + 1
                    if done + 1 == self.count:
                        del found[number]
                        yield number, solutions
                owner[ended] = -1
                given[ended] = due[ended] = 0
            idle = owner < 0
            pending = begun < len(prompts)
            free = np.flatnonzero(idle) if pending and idle.sum() >= min(len(owner), max(self.count, len(owner) // 8)) else free[:0]
            # 5. none left to begin: rows that have ended go, so that the others are faster
            if not pending and not idle.all() and idle.sum() > 0.4 * len(owner) and len(owner) > 32:
                keep = np.flatnonzero(~idle)
                stay = torch.from_numpy(keep).to(device)
                for layer, (keys, values) in enumerate(cache):
                    cache[layer] = keys[stay], values[stay]
                    del keys, values
                mask, positions, logits = mask[stay], positions[stay], logits[stay]
                owner, first, written, likelihood, length = owner[keep], first[keep], written[keep], likelihood[keep], length[keep]
                line, lines, forced, given, due = line[keep], lines[keep], forced[keep], given[keep], due[keep]
                free = free[:0]
