"""A causal language model that reads, goes on and writes, many texts at once."""

from __future__ import annotations

import functools
import inspect
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pcm_ros.models.causal_loading import embedded_language_model, load_causal, round_weights
from pcm_ros.models.eight_bit_linear import fast_in_eight_bits, noted_inputs, use_eight_bits
from pcm_ros.models.key_value_cache import Branches, Grown, Slots, grouped_attention
from pcm_ros.models.loading import fast_precision
from pcm_ros.models.low_rank import merge_adapter
from pcm_ros.models.packed_linear import pack_linear_layers
from pcm_ros.models.torchvision_shim import prepare_torchvision

COLDEST = 0.01
"""The least temperature of draws: logits divided by much less overflow. 0 = no draws, always the likeliest token."""


def language_precision(typical: bool, dtype: torch.dtype | None = None) -> tuple[torch.dtype, bool]:
    """The type of a language model's states, and whether its packed linear layers are computed in eight-bit integers.

    Args:
        typical: whether a typical text is known, without which there are no eight-bit integers. dtype: asked for; None = what is fastest:
            float32 with eight-bit integers on a processor with VNNI, else `fast_precision`.
    """
    able = typical and fast_in_eight_bits()
    dtype = dtype or (torch.float32 if able else fast_precision())
    return dtype, able and dtype == torch.float32


class LanguageModel:
    """A causal language model that goes on from many texts at once and never reads a text twice.

    Args:
        path: a folder in transformers' format, or a GGUF file. None = the embedded SmolLM2-135M-Instruct.
        adapter: a file of `low_rank.save_adapter`, merged into the weights.
        dtype: float32 or bfloat16; None: see `language_precision`.
        pack: whether to make it faster at once, see `pack`.
        typical: a text like those that it will read, at least two tokens; with one, eight-bit integers may be used.

    Raises:
        ModelUnavailable: see `load_causal` and `low_rank.merge_adapter`.
    """

    def __init__(
        self,
        path: Path | None = None,
        adapter: Path | None = None,
        dtype: torch.dtype | None = None,
        pack: bool = True,
        typical: str | None = None,
    ) -> None:
        dtype, eight_bits = language_precision(typical is not None, dtype)
        prepare_torchvision()
        from transformers import AttentionInterface

        AttentionInterface.register("grouped", grouped_attention)
        first = dtype if adapter is None else torch.float32  # so that the sum is rounded once
        self.model, self.tokenizer = load_causal(path or embedded_language_model(), first, attention="grouped")
        if adapter is not None:
            merge_adapter(self.model, adapter)
            round_weights(self.model, dtype)
        self.dtype, self._typical = dtype, typical if eight_bits else None
        # transformers 5.24 renamed it
        self._cache_name = "cache" if "cache" in inspect.signature(self.model.base_model.forward).parameters else "past_key_values"
        self.end = {self.tokenizer.eos_token_id} - {None}
        self.context = int(getattr(self.model.config, "max_position_embeddings", 2048))
        self._pieces: dict[int, str] = {}
        if pack:
            self.pack()

    def pack(self) -> None:
        """Make it faster: its weights can't be changed any more, and no gradients pass. Linear layers are computed in eight-bit integers
        from then on (`EightBitLinear`) where `language_precision` says so; else the numbers stay what they are (`PackedLinear`)."""
        if self._typical is not None:
            tokens = self.encode(self._typical)[: self.context - 1]
            with noted_inputs(self.model) as inputs:
                self.feed(self.read([tokens[:1]]), [0], [tokens[1:]])  # of what is fed every token gets its logits, the last layer's input
            use_eight_bits(self.model, inputs)
        else:
            pack_linear_layers(self.model)

    def encode(self, text: str) -> list[int]:
        """Token ids, without any that mark a beginning or an end: "<|im_end|>" in a text is these ten characters, no control token."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; the end token is left out."""
        return str(self.tokenizer.decode([token for token in tokens if token not in self.end], clean_up_tokenization_spaces=False))

    def piece(self, token: int) -> str:
        """The text of one token. Parts of a character that needs several tokens come out as U+FFFD."""
        if token not in self._pieces:
            self._pieces[token] = self.decode([token])
        return self._pieces[token]

    @torch.inference_mode()
    def read(self, texts: Sequence[Sequence[int]]) -> Branches:
        """Read texts given as token ids. One text alone becomes the prefix of all that is written behind it.

        Raises:
            ValueError: no text, an empty one, or one longer than the model's context.
        """
        lengths = [len(text) for text in texts]
        if not lengths or not 1 <= min(lengths) <= max(lengths) < self.context:
            raise ValueError(f"texts have {lengths} tokens; allowed: at least one text, each of 1..{self.context - 1}")
        longest = max(lengths)
        ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        seen = torch.arange(longest) < torch.tensor(lengths)[:, None]
        config = self.model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        empty = torch.zeros(len(texts), heads, longest, size, dtype=self.dtype)
        layers = tuple((empty.clone(), empty.clone()) for _ in range(config.num_hidden_layers))
        last = torch.tensor(lengths) - 1
        hidden = self._forward(layers, 0, seen, ids, torch.arange(longest).expand(len(texts), -1))[torch.arange(len(texts)), last]
        logits, state = self._logits(hidden), hidden.float()
        if len(texts) == 1:
            nothing = tuple((keys[:, :, :0], values[:, :, :0]) for keys, values in layers)
            return Branches(nothing, seen[:, :0], logits, state, layers)
        return Branches(layers, seen, logits, state)

    @torch.inference_mode()
    def feed(
        self, branches: Branches, rows: Sequence[int], texts: Sequence[Sequence[int]], scored: bool = True
    ) -> tuple[Branches, tuple[tuple[float, ...], ...]]:
        """Read on: text i behind row rows[i]. The new branches, and each token's log-likelihood (nats).

        Args:
            scored: False = no log-likelihoods, for which every token goes through the output layer (a fifth of SmolLM2's weights): R empty
                tuples. The last token of each text does in any case.

        Raises:
            ValueError: an empty text, or one that with what stands before it is longer than the model's context.
        """
        lengths = torch.tensor([len(text) for text in texts])
        if not len(texts) or int(lengths.min()) < 1 or len(rows) != len(texts):
            raise ValueError(
                f"{len(texts)} texts of {lengths.tolist()} tokens behind {len(rows)} rows; allowed: one text per row, none empty"
            )
        if (whole := int((branches.lengths[list(rows)] + lengths).max())) >= self.context:
            raise ValueError(f"a text has {whole} tokens with what stands before it; allowed: at most {self.context - 1}")
        longest = int(lengths.max())
        start = branches.select(rows, room=longest)
        old = start.seen.shape[1] - longest
        ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        seen = start.seen.clone()
        seen[:, old:] = torch.arange(longest) < lengths[:, None]
        positions = start.lengths[:, None] + torch.arange(longest)
        hidden = self._forward(start.layers, old, seen, ids, positions, start.prefix)
        last = hidden[torch.arange(len(rows)), lengths - 1]
        fed = Branches(start.layers, seen, self._logits(last), last.float(), start.prefix)
        if not scored:
            return fed, ((),) * len(rows)
        first = _log_likelihoods(start.logits, ids[:, 0]).tolist()
        inner = torch.arange(longest - 1) < lengths[:, None] - 1  # tokens behind which the text goes on
        states, following = hidden[:, :-1][inner], ids[:, 1:][inner]
        later: list[float] = []
        for some, tokens in zip(states.split(_SCORED), following.split(_SCORED), strict=True):
            later += _log_likelihoods(self._logits(some), tokens).tolist()
        others = iter(later)
        return fed, tuple((one, *itertools.islice(others, count - 1)) for one, count in zip(first, lengths.tolist(), strict=True))

    @torch.inference_mode()
    def write(
        self,
        branches: Branches,
        rows: Sequence[int],
        temperature: Sequence[float],
        most: int,
        rng: torch.Generator,
        deadline: float | None = None,
        filled_in: Callable[[str], str | None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Grown:
        """Write one line behind each of these rows; a row may be named several times.

        Args:
            temperature: one per row, >= 0.01 (`COLDEST`); 0 = always the likeliest token.
            most: tokens per line, >= 1.
            rng: the only source of randomness.
            deadline: time.monotonic() at which to stop wherever it is.
            filled_in: asked after each token with the row's line so far; a text it returns is written next instead of what the model
                would say (the calculator of marked equations).
            stop: asked after each token; true ends the lines as the deadline does.

        Raises:
            ValueError: an argument out of its range.
        """
        if len(rows) != len(temperature) or not rows or not all(t == 0 or t >= COLDEST for t in temperature) or most < 1:
            raise ValueError(
                f"{len(rows)} rows, temperatures {list(temperature)}, most {most}; "
                f"allowed: one temperature each, 0 or >= {COLDEST}, and most >= 1"
            )
        most = min(most, self.context - int(branches.lengths[list(rows)].max()))
        if most < 1:
            raise ValueError(f"the text fills the model's context of {self.context} tokens; remedy: a shorter one")
        state = branches.select(rows, room=most)
        base = state.seen.shape[1] - most
        heat = torch.tensor(list(temperature), dtype=torch.float32)
        count = len(rows)
        tokens: list[list[int]] = [[] for _ in range(count)]
        likelihoods: list[list[float]] = [[] for _ in range(count)]
        lines, ended = [""] * count, [""] * count
        forced: list[list[int]] = [[] for _ in range(count)]
        present = list(range(count))  # which of the `count` rows each row of `state` is
        finished: list[int] = []
        results: list[Branches] = []
        for slot in range(most):
            chosen = _drawn(state.logits, heat[present], torch.rand(count, generator=rng)[present])
            for i, row in enumerate(present):
                if forced[row]:
                    chosen[i] = forced[row].pop(0)
            scores = _log_likelihoods(state.logits, chosen).tolist()
            late = (deadline is not None and time.monotonic() >= deadline) or stop()
            active = torch.tensor([not ended[row] for row in present])
            for i, row in enumerate(present):
                if ended[row]:
                    continue
                token = int(chosen[i])
                tokens[row].append(token)
                likelihoods[row].append(scores[i])
                lines[row] += self.piece(token)
                if token in self.end:
                    ended[row] = "end"
                elif "\n" in lines[row]:
                    ended[row] = "line"
                elif late:
                    ended[row] = "deadline"
                elif slot + 1 == most:
                    ended[row] = "limit"
                elif filled_in is not None and not forced[row] and (text := filled_in(lines[row])):
                    forced[row] = self.encode(text)
            seen = state.seen.clone()
            seen[:, base + slot] = active
            positions = (seen.sum(dim=1) + state.shared - 1)[:, None]
            hidden = self._forward(state.layers, base + slot, seen, chosen[:, None], positions, state.prefix)[:, 0]
            logits, last = self._logits(hidden), hidden.float()
            if not active.all():
                logits, last = torch.where(active[:, None], logits, state.logits), torch.where(active[:, None], last, state.hidden)
            state = Branches(state.layers, seen, logits, last, state.prefix)
            over = [i for i, row in enumerate(present) if ended[row]]
            if len(over) == len(present):
                break
            if len(over) >= 0.15 * len(present):  # until then it is cheaper to let them idle than to move the cache of the others
                finished += [present[i] for i in over]
                results.append(state.select(over))
                left = [i for i, row in enumerate(present) if not ended[row]]
                present = [present[i] for i in left]
                layers = tuple((keys[left], values[left]) for keys, values in state.layers)
                state = Branches(layers, state.seen[left], state.logits[left], state.hidden[left], state.prefix)
        result = functools.reduce(Branches.joined, [*results, state.select(range(len(present)))])
        place = {row: i for i, row in enumerate([*finished, *present])}
        grown = result.select([place[row] for row in range(count)]) if finished else result
        return Grown(tuple(map(tuple, tokens)), tuple(map(tuple, likelihoods)), tuple(ended), grown)

    def logits_after(self, layers: Sequence[tuple[Tensor, Tensor]], token: int, prefix: Sequence[tuple[Tensor, Tensor]] = ()) -> Tensor:
        """(1, V) float32 logits of what comes next once one more token is read. Gradients flow back to the keys and values, unless the
        model is packed.

        Args:
            layers: keys and values of each layer, (1, G, S, D) both, S >= 0, of the tokens before it. prefix: as in `Branches`.
        """
        length = layers[0][0].shape[2]
        room = tuple((nn.functional.pad(keys, (0, 0, 0, 1)), nn.functional.pad(values, (0, 0, 0, 1))) for keys, values in layers)
        position = length + (prefix[0][0].shape[2] if prefix else 0)
        seen = torch.ones(1, length + 1, dtype=torch.bool)
        hidden = self._forward(room, length, seen, torch.tensor([[token]]), torch.tensor([[position]]), tuple(prefix))
        return self._logits(hidden[:, -1])

    def _forward(
        self,
        layers: tuple[tuple[Tensor, Tensor], ...],
        filled: int,
        seen: Tensor,
        ids: Tensor,
        positions: Tensor,
        prefix: tuple[tuple[Tensor, Tensor], ...] = (),
    ) -> Tensor:
        """(R, T, H) last states of T new tokens per row, whose keys and values are written into the slots from `filled` on."""
        from transformers import Cache

        tokens, shared = ids.shape[1], prefix[0][0].shape[2] if prefix else 0
        slots = torch.arange(filled + tokens)
        shown = seen[:, None, : filled + tokens] & (slots <= filled + torch.arange(tokens)[:, None])
        mask = torch.zeros(len(ids), 1, tokens, shared + filled + tokens, dtype=self.dtype)
        mask[:, 0, :, shared:].masked_fill_(~shown, torch.finfo(self.dtype).min)
        cache = Cache(layers=[Slots(keys, values, filled) for keys, values in layers])
        more = {self._cache_name: cache, "use_cache": True} | ({"prefix": prefix} if prefix else {})
        return self.model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, **more).last_hidden_state

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.model.get_output_embeddings()(hidden).float()


def _log_likelihoods(logits: Tensor, tokens: Tensor) -> Tensor:
    """(R,) of tokens (R,) under logits (R, V), nats."""
    return logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(dim=-1)


def _drawn(logits: Tensor, temperature: Tensor, uniform: Tensor) -> Tensor:
    """(R,) tokens: the likeliest where the temperature is 0, else drawn by inverting the cumulative distribution at `uniform` (R,)."""
    warm = temperature > 0
    if not warm.any():
        return logits.argmax(dim=-1)
    if not warm.all():
        best = logits.argmax(dim=-1)
        best[warm] = _drawn(logits[warm], temperature[warm], uniform[warm])
        return best
    return inverted(torch.softmax(logits / temperature[:, None], dim=-1), uniform)


def inverted(shares: Tensor, uniform: Tensor) -> Tensor:
    """(R,) places at which the cumulative sums of shares (R, V) pass `uniform` (R,), 0..1: draws from them. Rows need not sum to 1."""
    # In two steps, so that the sums run over hundreds of numbers and not over a vocabulary: first a block, then a token in it.
    blocks = nn.functional.pad(shares, (0, -shares.shape[1] % _BLOCK)).view(len(shares), -1, _BLOCK)
    totals = blocks.sum(dim=-1).cumsum(dim=-1)
    aim = uniform[:, None] * totals[:, -1:]
    block = torch.searchsorted(totals, aim, right=True).clamp_max(totals.shape[1] - 1)
    before = torch.where(block > 0, totals.gather(1, (block - 1).clamp_min(0)), 0)
    within = blocks[torch.arange(len(shares), device=shares.device), block[:, 0]].cumsum(dim=-1)
    rest = (aim - before).clamp_min(0).minimum(within[:, -1:] * (1 - 1e-6))  # rounding must not lead behind the last possible token
    place = torch.searchsorted(within, rest, right=True).clamp_max(_BLOCK - 1)
    return (block * _BLOCK + place).squeeze(1).clamp_max(shares.shape[-1] - 1)


_BLOCK = 256
_SCORED = 256  # tokens whose logits are held at a time
