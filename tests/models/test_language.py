"""Language models made on disk with random weights, loaded by the code that loads the real ones."""

from __future__ import annotations

import pickle
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pcm_ros.models import language
from pcm_ros.models.causal_loading import embedded_language_model, load_causal
from pcm_ros.models.language import LanguageModel, language_precision
from pcm_ros.models.loading import ModelUnavailable, fast_precision
from pcm_ros.models.low_rank import add_low_rank, low_rank_layers, merge_adapter, save_adapter
from tests.models.tiny_language import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_model(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return of


@pytest.mark.parametrize(
    ("vnni", "fast", "typical", "asked", "found"),
    [
        (True, torch.bfloat16, True, None, (torch.float32, True)),
        (True, torch.float32, True, None, (torch.float32, True)),
        (True, torch.bfloat16, False, None, (torch.bfloat16, False)),
        (True, torch.float32, True, torch.bfloat16, (torch.bfloat16, False)),
        (False, torch.bfloat16, True, None, (torch.bfloat16, False)),
        (False, torch.float32, True, torch.float32, (torch.float32, False)),
    ],
)
def test_eight_bits_are_used_where_the_processor_has_them_and_a_typical_text_is_known(
    vnni: bool,
    fast: torch.dtype,
    typical: bool,
    asked: torch.dtype | None,
    found: tuple[torch.dtype, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(language, "fast_in_eight_bits", lambda: vnni)
    monkeypatch.setattr(language, "fast_precision", lambda: fast)
    assert language_precision(typical, asked) == found


@pytest.fixture(scope="module")
def llama(folder: Callable[[str], Path]) -> LanguageModel:
    return LanguageModel(folder("llama"), dtype=torch.float32)


def _whole(folder: Path, tokens: list[int]) -> Tensor:
    """(T, V) log-probabilities by transformers' own attention, without any cache."""
    reference, _ = load_causal(folder, torch.float32, "eager")
    with torch.inference_mode():
        return torch.log_softmax(reference(input_ids=torch.tensor([tokens])).logits[0].float(), dim=-1)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_every_precision_works_on_every_processor(folder: Callable[[str], Path], llama: LanguageModel, dtype: torch.dtype | None) -> None:
    """Also where oneDNN has no kernels for it; by default in what the processor is fast in."""
    model = LanguageModel(folder("llama"), dtype=dtype)
    assert model.dtype == (dtype or fast_precision())
    text = model.encode("the cat sat on a mat")
    found, exact = (torch.log_softmax(one.read([text]).logits[0], -1) for one in (model, llama))
    assert torch.allclose(found, exact, atol=0.3)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_branches_of_different_lengths_are_those_of_reading_each_text_alone(folder: Callable[[str], Path], kind: str) -> None:
    model = LanguageModel(folder(kind), dtype=torch.float32)
    texts = [model.encode("the cat sat on a mat"), model.encode("12 eggs"), model.encode("a")]
    branches = model.read(texts)
    for row, text in enumerate(texts):
        assert torch.allclose(torch.log_softmax(branches.logits[row], -1), _whole(folder(kind), text)[-1], atol=1e-4)
    more = [model.encode(" and 7 more"), model.encode(" = 12 * 7 + 7 eggs and more"), model.encode("t")]
    fed, likelihoods = model.feed(branches, [1, 1, 0], more)
    for row, (parent, text) in enumerate(zip([1, 1, 0], more, strict=True)):
        expected = _whole(folder(kind), texts[parent] + text)
        assert torch.allclose(torch.log_softmax(fed.logits[row], -1), expected[-1], atol=1e-4)
        own = expected[len(texts[parent]) - 1 : -1].gather(1, torch.tensor(text)[:, None]).squeeze(1)
        assert likelihoods[row] == pytest.approx(own.tolist(), abs=1e-4)


def test_what_is_fed_is_the_same_however_it_is_scored(llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of a few tokens at a time, of all at once, and of the last ones alone."""
    branches = llama.read([llama.encode("the cat")])
    texts = [llama.encode(text) for text in ("t", " and 7 more", " = 12 * 7 + 7 eggs")]
    fed, likelihoods = llama.feed(branches, [0, 0, 0], texts)
    assert [len(one) for one in likelihoods] == [len(text) for text in texts]
    monkeypatch.setattr(language, "_SCORED", 2)
    for one, again in zip(likelihoods, llama.feed(branches, [0, 0, 0], texts)[1], strict=True):
        assert one == pytest.approx(again, abs=1e-5)
    silent, nothing = llama.feed(branches, [0, 0, 0], texts, scored=False)
    assert nothing == ((), (), ()) and torch.equal(silent.logits, fed.logits) and torch.equal(silent.hidden, fed.hidden)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_a_shared_prefix_changes_nothing(folder: Callable[[str], Path], kind: str) -> None:
    """One text alone is held once for all that is written behind it; beside others, joined and copied, it is the same text."""
    model = LanguageModel(folder(kind), dtype=torch.float32)
    text, more = model.encode("the cat sat on a mat"), [model.encode(" and 7 more"), model.encode(" = 12 * 7 + 7 eggs"), model.encode("t")]
    alone = model.read([text])
    assert alone.shared == len(text) and alone.layers[0][0].shape[2] == 0
    fed, likelihoods = model.feed(alone, [0, 0, 0], more)
    assert fed.prefix is alone.prefix
    beside = model.read([text, more[0]])
    assert beside.shared == 0
    expected, same = model.feed(beside, [0, 0, 0], more)
    for row in range(3):
        assert likelihoods[row] == pytest.approx(same[row], abs=1e-4)
    assert fed.lengths.tolist() == expected.lengths.tolist()
    grown = model.write(fed, [2, 0, 1, 1], [0.0, 1.0, 1.0, 0.0], 12, torch.Generator().manual_seed(4))
    reference = model.write(expected, [2, 0, 1, 1], [0.0, 1.0, 1.0, 0.0], 12, torch.Generator().manual_seed(4))
    assert grown.tokens == reference.tokens and grown.branches.prefix is alone.prefix
    assert torch.allclose(grown.branches.logits, reference.branches.logits, atol=1e-4)
    mixed = fed.joined(expected)  # what shares a prefix and what does not
    again, _ = model.feed(mixed, list(range(6)), [more[2]] * 6)
    assert mixed.shared == 0 and torch.allclose(again.logits[:3], again.logits[3:], atol=1e-4)


def test_writing_is_what_the_model_says_token_by_token(folder: Callable[[str], Path], llama: LanguageModel) -> None:
    texts = [llama.encode("the cat sat"), llama.encode("on a mat with 12 eggs and 7 more")]
    branches = llama.read(texts)
    grown = llama.write(branches, [0, 1, 0, 1, 0], [0, 0, 1.0, 1.0, 1.0], 30, torch.Generator().manual_seed(5))
    assert len(grown.branches) == 5
    for row, parent in enumerate([0, 1, 0, 1, 0]):
        text = texts[parent] + list(grown.tokens[row])
        expected = _whole(folder("llama"), text)
        assert torch.allclose(torch.log_softmax(grown.branches.logits[row], -1), expected[-1], atol=1e-4)
        assert int(grown.branches.lengths[row]) == len(text)
        own = expected[len(texts[parent]) - 1 : -1].gather(1, torch.tensor(grown.tokens[row])[:, None]).squeeze(1)
        assert grown.log_likelihoods[row] == pytest.approx(own.tolist(), abs=1e-4)
        if row < 2:  # temperature 0
            assert list(grown.tokens[row]) == expected[len(texts[parent]) - 1 : -1].argmax(dim=1).tolist()
    again = llama.write(branches, [0, 1, 0, 1, 0], [0, 0, 1.0, 1.0, 1.0], 30, torch.Generator().manual_seed(5))
    assert again.tokens == grown.tokens
    assert len({grown.tokens[row] for row in (0, 2, 4)}) > 1


def test_a_line_ends_where_it_should(llama: LanguageModel) -> None:
    branches = llama.read([llama.encode("the cat")])
    grown = llama.write(branches, [0] * 64, [3.0] * 64, 40, torch.Generator().manual_seed(1))
    assert {"line", "end", "limit"} == set(grown.ended)  # a random model at high temperature ends in each way
    for tokens, ended in zip(grown.tokens, grown.ended, strict=True):
        text = llama.decode(tokens)
        assert ("\n" in text) == (ended == "line")
        assert (tokens[-1] in llama.end) == (ended == "end")
        assert (len(tokens) == 40) or ended != "limit"


def test_drawn_tokens_follow_the_distribution(llama: LanguageModel) -> None:
    branches = llama.read([llama.encode("the")])
    count = 4000
    grown = llama.write(branches, [0] * count, [1.0] * count, 1, torch.Generator().manual_seed(2))
    drawn = torch.bincount(torch.tensor([tokens[0] for tokens in grown.tokens]), minlength=branches.logits.shape[1]) / count
    expected = torch.softmax(branches.logits[0], dim=0)
    assert float((drawn - expected).abs().sum()) < 2.5 * float((expected / count).sqrt().sum())


def test_filled_in_text_comes_next(llama: LanguageModel) -> None:
    branches = llama.read([llama.encode("the cat")])
    grown = llama.write(branches, [0, 0], [0.0, 1.0], 12, torch.Generator(), filled_in=lambda line: "=12>>\n" if "=" not in line else None)
    assert all(llama.decode(tokens).endswith("=12>>\n") for tokens in grown.tokens)
    assert grown.ended == ("line", "line")


def test_a_deadline_that_is_over_costs_one_token(llama: LanguageModel) -> None:
    grown = llama.write(llama.read([llama.encode("the cat")]), [0], [0.0], 100, torch.Generator(), deadline=time.monotonic() - 1)
    assert grown.ended == ("deadline",)
    assert len(grown.tokens[0]) == 1


def test_the_context_is_never_exceeded(llama: LanguageModel) -> None:
    branches = llama.read([[5] * 250])
    assert len(llama.write(branches, [0], [0.0], 100, torch.Generator(), filled_in=lambda _: "a").tokens[0]) <= 6
    with pytest.raises(ValueError, match=r"allowed: at least one text, each of 1\.\.255"):
        llama.read([[5] * 256])
    with pytest.raises(ValueError, match="allowed"):
        llama.read([[]])


def test_a_text_that_is_read_on_fits_into_the_context(llama: LanguageModel) -> None:
    branches = llama.read([[5] * 250, [5]])
    assert int(llama.feed(branches, [0, 1], [[6] * 5, [6]])[0].lengths[0]) == 255
    with pytest.raises(ValueError, match="a text has 256 tokens with what stands before it; allowed: at most 255"):
        llama.feed(branches, [1, 0], [[6], [6] * 6])


@pytest.mark.parametrize("text", ["<end>", "a cat<end>sat", "<end><end> 12 eggs"])
def test_no_text_holds_control_tokens(llama: LanguageModel, text: str) -> None:
    tokens = llama.encode(text)
    assert not set(tokens) & set(llama.tokenizer.all_special_ids)
    assert llama.decode(tokens) == text


@pytest.mark.parametrize("temperature", [-1.0, 1e-40, 0.005])
def test_temperatures_that_overflow_are_refused(llama: LanguageModel, temperature: float) -> None:
    with pytest.raises(ValueError, match=r"allowed: one temperature each, 0 or >= 0\.01"):
        llama.write(llama.read([[5]]), [0], [temperature], 3, torch.Generator())


def test_an_adapter_merged_is_the_adapter_beside_the_weights(folder: Callable[[str], Path], tmp_path: Path) -> None:
    model, _ = load_causal(folder("llama"), torch.float32, "eager")
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.inference_mode():
        plain = model(input_ids=ids).logits
    add_low_rank(model, 4, 8.0)
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, plain)  # zero at first
        for _, layer in low_rank_layers(model):
            layer.up.normal_(0, 0.1)
        expected = model(input_ids=ids).logits
    save_adapter(model, tmp_path / "adapter.safetensors", torch.float32)
    merged, _ = load_causal(folder("llama"), torch.float32, "eager")
    merge_adapter(merged, tmp_path / "adapter.safetensors")
    with torch.inference_mode():
        assert torch.allclose(merged(input_ids=ids).logits, expected, atol=1e-4)
    assert not torch.allclose(expected, plain, atol=1e-2)
    with pytest.raises(ModelUnavailable, match="another architecture"):
        merge_adapter(load_causal(folder("gpt2"), torch.float32, "eager")[0], tmp_path / "adapter.safetensors")


def test_a_file_that_is_no_adapter(folder: Callable[[str], Path]) -> None:
    model, _ = load_causal(folder("llama"), torch.float32, "eager")
    with pytest.raises(ModelUnavailable, match="neither rank nor alpha"):
        merge_adapter(model, folder("llama") / "model.safetensors")


@pytest.mark.parametrize("settings", ["null", "[]", '{"rank": null, "alpha": 1}', '{"rank": 0, "alpha": 1}', '{"rank": 4, "alpha": 8}'])
def test_an_adapter_without_additions(folder: Callable[[str], Path], tmp_path: Path, settings: str) -> None:
    path = tmp_path / "adapter.safetensors"
    save_file({"head.weight": torch.zeros(1, 4)}, path, metadata={"format": "pt", "low_rank": settings})
    model, _ = load_causal(folder("llama"), torch.float32, "eager")
    with pytest.raises(ModelUnavailable, match=r"neither rank nor alpha|adds nothing"):
        merge_adapter(model, path)


def test_loading_does_not_change_the_type_of_other_threads(folder: Callable[[str], Path]) -> None:
    seen, done = set(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(torch.zeros(1).dtype)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        model, _ = load_causal(folder("llama"), torch.bfloat16)
    finally:
        done.set()
        thread.join()
    assert seen == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelUnavailable, match=r"cannot be written .*remedy: set PCM_CACHE"):
        load_causal(embedded_language_model())


def test_a_cache_on_a_disk_that_is_full(folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file may grow beyond a few bytes, so that safetensors fails as it does on a full disk."""
    model, tokenizer = load_causal(folder("llama"))
    for content in (model, tokenizer):
        monkeypatch.setattr(
            f"transformers.Auto{'ModelForCausalLM' if content is model else 'Tokenizer'}.from_pretrained", lambda *_, c=content, **__: c
        )
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    monkeypatch.setenv("PCM_CACHE", str(tmp_path / "cache"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(ModelUnavailable, match=r"cannot be written .*remedy: set PCM_CACHE"):
            load_causal(tmp_path / "model.gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "cache").iterdir())
    assert load_causal(tmp_path / "model.gguf")[0] is model
    assert [path.name.startswith("model-") for path in (tmp_path / "cache").iterdir()] == [True]


class _Trap:
    """Unpickling it would be noticed."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_never_loaded(folder: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder("llama") / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(ModelUnavailable, match=r"no \.safetensors weights"):
        load_causal(tmp_path)
    (tmp_path / "model.gguf").write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(ModelUnavailable, match="no GGUF file"):
        load_causal(tmp_path / "model.gguf")


def test_truncated_weights(folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder("llama").iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    with pytest.raises(ModelUnavailable, match="can't be loaded"):
        load_causal(tmp_path)
    monkeypatch.setenv("PCM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "half.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelUnavailable, match="can't be converted"):
        load_causal(tmp_path / "half.gguf")
    assert not list((tmp_path / "cache").glob("half*"))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"neither a \.gguf file nor a folder"):
        load_causal(tmp_path)
    with pytest.raises(ModelUnavailable, match="does not exist"):
        load_causal(tmp_path / "nothing.gguf")


def test_remote_code_is_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    for path in folder("llama").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = (tmp_path / "config.json").read_text()
    told = config.replace('"model_type": "llama"', '"model_type": "mine", "auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "c.M"}')
    assert told != config
    (tmp_path / "config.json").write_text(told)
    (tmp_path / "c.py").write_text("import pytest\npytest.fail('remote code was run')\n")
    with pytest.raises(ModelUnavailable, match="can't be loaded"):
        load_causal(tmp_path)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_logits_behind_keys_and_values_and_their_gradient(folder: Callable[[str], Path], kind: str) -> None:
    model = LanguageModel(folder(kind), dtype=torch.float32, pack=False)
    prefix, rest = model.encode("Question: how many?"), model.encode("Answer: three dogs")
    read, _ = model.feed(model.read([prefix]), [0], [rest])
    layers = [(keys[:, :, :-1].clone(), values[:, :, :-1].clone()) for keys, values in read.layers]
    before = [(keys.clone(), values.clone()) for keys, values in read.prefix]
    assert torch.allclose(model.logits_after(layers, rest[-1], before), read.logits, atol=1e-4)
    keys, values = layers[-1]
    values.requires_grad_()
    loss = model.logits_after(layers, rest[-1], before)[0, 5]
    (gradient,) = torch.autograd.grad(loss, values)
    direction = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ends = [model.logits_after([*layers[:-1], (keys, values + sign * 0.05 * direction)], rest[-1], before)[0, 5] for sign in (1, -1)]
    assert float(ends[0] - ends[1]) / 0.1 == pytest.approx(float((gradient * direction).sum()), rel=0.05, abs=1e-4)
