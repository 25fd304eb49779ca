"""The trained experts: what they are given, how their files are checked, and that the training scripts make files that they load."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pcm_ros.models.causal_loading import load_causal
from pcm_ros.models.eight_bit_linear import fast_in_eight_bits
from pcm_ros.models.language import LanguageModel
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.models.low_rank import add_low_rank, additions, low_rank_layers, save_adapter
from pcm_ros.models.sentence import sentence_encoder
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.notation import prompt
from pcm_ros.tasks.mathematics.proposals import Problem, solutions_batch
from pcm_ros.tasks.mathematics.reading import FEATURES, structure, usage
from pcm_ros.tasks.mathematics.verifiers import HiddenStateVerifier, SentenceNetwork, SentenceVerifier, sentence_inputs
from tests.tasks.mathematics.conftest import KNOWN
from training import maths_sentence_verifier
from training.maths_drawing import Decoder, Drawing
from training.maths_hidden_verifier import begin_from, judgements
from training.maths_labels import Sampled, area_under_curve, beginnings, held_out_figures, ranking_loss, sampled, shares_right, stopped
from training.maths_samples import Labelled, begun, problems, right, right_step
from training.maths_trees import padded, sample_branches, trees, trunk_of
from training.precision import training_precision, typical_inputs

QUESTION = next(iter(KNOWN))
TEXTS = ["Tom has <<3*4=12>> eggs.\n", "Tom has <<3*4=12>> eggs.\n<<12-2=10>> eggs are left.\n#### 10"]


def batch_of(texts: list[str]) -> object:
    count = len(texts)
    return solutions_batch(texts, ["####" in text for text in texts], [1.0] * count, [0.0] * count, [0] * count)


def test_usage_of_a_solution() -> None:
    use = usage(QUESTION, TEXTS[1])
    assert (use.lines, use.equations, use.wrong, use.numbers, use.unused, use.unknown, use.idle) == (2, 2, 0, 3, 0, 0, 0)
    assert use.complete
    assert use.answer_is_last
    assert use.on_topic == 1.0
    odd = usage(QUESTION, "Tom has <<3*4=13>> cats.\nSo <<99-3=96>> cats.\n#### 5")
    assert (odd.wrong, odd.unused, odd.unknown, odd.idle, odd.answer_is_last, odd.on_topic) == (1, 1, 1, 1, False, 0.0)
    for text in (*TEXTS, "", "nonsense"):
        features = structure(QUESTION, text)
        assert len(features) == FEATURES
        assert all(abs(value) < 10 for value in features)


@pytest.fixture
def hidden_file(tiny_folder: Path, tmp_path: Path) -> Path:
    model, _ = load_causal(tiny_folder, torch.float32, "eager")
    add_low_rank(model, 2, 4.0, within=r"\.layers\.1\.")
    torch.manual_seed(1)
    for _, layer in low_rank_layers(model):
        layer.up.data.normal_(0, 0.1)
    path = tmp_path / "hidden.safetensors"
    save_adapter(model, path, torch.float32, more={"head.weight": torch.randn(64), "head.bias": torch.tensor([0.5])})
    return path


def test_the_hidden_state_verifier_reads_the_adapted_model(tiny_folder: Path, hidden_file: Path) -> None:
    scorer = HiddenStateVerifier(LanguageModel(tiny_folder, dtype=torch.float32, pack=False), hidden_file)
    energies = scorer.energy(batch_of(TEXTS), Problem(QUESTION))  # type: ignore[arg-type]
    reference = LanguageModel(tiny_folder, adapter=hidden_file, dtype=torch.float32)
    head = load_file(hidden_file)
    for text, energy in zip(TEXTS, energies.tolist(), strict=True):
        ids, found = reference.encode(prompt(QUESTION)), []
        for line in text.splitlines(keepends=True):
            ids += reference.encode(line)
            state = reference.read([ids]).hidden[0]
            logit = float(state @ head["head.weight"] + head["head.bias"])
            found.append(float(torch.nn.functional.softplus(torch.tensor(-logit))))
        assert energy == pytest.approx((found[-1] + np.mean(found)) / 2, abs=1e-3)


def test_training_begins_from_earlier_weights_or_from_their_mean(tiny_folder: Path, hidden_file: Path, tmp_path: Path) -> None:
    model, _ = load_causal(tiny_folder, torch.float32, "eager")
    add_low_rank(model, 2, 4.0, within=r"\.layers\.1\.")
    head = torch.nn.Linear(64, 1)
    begin_from([hidden_file], model, head)
    kept = load_file(hidden_file)
    assert torch.equal(head.weight[0], kept["head.weight"])
    for name, parameter in additions(model).items():
        assert torch.equal(parameter, kept[name])
    save_file({name: 3 * tensor for name, tensor in kept.items()}, tmp_path / "more.safetensors")
    begin_from([hidden_file, tmp_path / "more.safetensors"], model, head)
    assert torch.allclose(head.bias, 2 * kept["head.bias"])
    for name, parameter in additions(model).items():
        assert torch.allclose(parameter, 2 * kept[name])
    other, _ = load_causal(tiny_folder, torch.float32, "eager")
    add_low_rank(other, 3, 4.0, within=r"\.layers\.1\.")
    save_adapter(other, tmp_path / "wider.safetensors", torch.float32, more={"head.weight": torch.ones(64), "head.bias": torch.ones(1)})
    with pytest.raises(ValueError, match=r"hidden\.safetensors' is of other layers or another rank; remedy"):
        begin_from([tmp_path / "wider.safetensors", hidden_file], other, head)
    assert torch.allclose(head.bias, 2 * kept["head.bias"])  # as it was


def test_the_sentence_verifier_judges_every_line_in_its_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(SentenceNetwork().state_dict(), tmp_path / "sentence.safetensors")
    scorer = SentenceVerifier(sentence_encoder(), tmp_path / "sentence.safetensors")
    first, both = scorer.energy(batch_of(TEXTS), Problem(QUESTION)).tolist()  # type: ignore[arg-type]
    network = SentenceNetwork().eval()
    network.load_state_dict(load_file(tmp_path / "sentence.safetensors"))
    lines = TEXTS[1].splitlines(keepends=True)
    with torch.no_grad():
        odds = network(sentence_inputs(sentence_encoder(), [QUESTION] * 3, ["".join(lines[:count]) for count in (1, 2, 3)]))
    found = torch.nn.functional.softplus(-odds)
    assert first == pytest.approx(float(found[0]), abs=1e-5)
    assert both == pytest.approx(float(found.mean()), abs=1e-5)
    assert scorer.energy(batch_of(["", ""]), Problem(QUESTION)).tolist() == [0.0, 0.0]  # type: ignore[arg-type]


def test_a_hidden_state_verifier_has_the_model_and_the_adapter(
    tiny_folder: Path, hidden_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter for the hidden-state verifier is that of the generator; its base the generator's model."""
    (scorer,) = [each for each in assembly.scorers(tiny_folder, hidden_file, None, hidden_file) if isinstance(each, HiddenStateVerifier)]
    assert len(scorer.energy(batch_of(TEXTS), Problem(QUESTION))) == 2  # type: ignore[arg-type]
    monkeypatch.setattr(assembly, "language_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ValueError, match="without an adapter; remedy: give the adapter"):
        assembly.scorers(tiny_folder, None, None, hidden_file)


def test_files_that_are_no_verifier(tiny_folder: Path, tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(7), "head.bias": torch.zeros(1)}, tmp_path / "other.safetensors")
    save_file({"x": torch.zeros(7)}, tmp_path / "none.safetensors")
    model = LanguageModel(tiny_folder, dtype=torch.float32, pack=False)
    with pytest.raises(ModelUnavailable, match="states of size 7"):
        HiddenStateVerifier(model, tmp_path / "other.safetensors")
    with pytest.raises(ModelUnavailable, match="no verifier's head"):
        HiddenStateVerifier(model, tmp_path / "none.safetensors")
    with pytest.raises(ModelUnavailable, match="no sentence verifier"):
        SentenceVerifier(sentence_encoder(), tmp_path / "none.safetensors")


def test_what_the_sentence_verifier_sees() -> None:
    inputs = sentence_inputs(sentence_encoder(), [QUESTION] * 3, [*TEXTS, ""])
    assert inputs.shape == (3, SentenceNetwork.INPUTS)
    assert torch.isfinite(inputs).all()
    together = sentence_inputs(sentence_encoder(), [QUESTION] * 3, [*TEXTS, ""], together=True)
    assert torch.allclose(inputs, together, atol=1e-3)


PROBLEM = Sampled(
    0, "gsm8k", QUESTION, "10", True,
    ((TEXTS[1], 3, True), ("Tom has <<3*4=12>> eggs.\n#### 12", 1, False), ("#### 3", 2, False)),
)  # fmt: skip


def test_beginnings_have_the_share_of_their_right_ends() -> None:
    found = {beginning.text: beginning for beginning in beginnings(PROBLEM)}
    assert found[TEXTS[0]].right == 0.75
    assert found[TEXTS[0]].count == 4
    assert (found[TEXTS[1]].right, found[TEXTS[1]].complete) == (1.0, True)
    assert stopped(TEXTS[0]) == "Tom has <<3*4=12>> eggs.\n#### 12"
    assert stopped("no equation\n") is None
    early = Sampled(0, "gsm8k", QUESTION, "12", True, ((TEXTS[1], 1, False),))
    assert {b.text: b.right for b in beginnings(early)}["Tom has <<3*4=12>> eggs.\n#### 12"] == 1.0


def test_a_beginning_on_the_way_of_the_worked_solution_counts_as_right(tmp_path: Path) -> None:
    """No sample came to the answer; the first step is the worked solution's, the second is not, and the end stays as wrong as it is."""
    lost = "Tom has <<3*4=12>> eggs.\nHe has <<12+2=14>> eggs.\n#### 14"
    line = {"source": "gsm8k", "index": 1, "question": QUESTION, "answer": "10", "held_out": False}
    samples = [{"text": lost, "count": 2, "right": False}]
    (tmp_path / "samples.jsonl").write_text("\n".join(json.dumps(line | {"samples": part}) for part in (samples, [])))
    answers = ("#### 0", "3 * 4 = <<3*4=12>>12, 12 - 2 = <<12-2=10>>10\n#### 10")
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"question": QUESTION, "answer": answer}) for answer in answers))
    shares = {}
    for worked in (None, tmp_path / "train.jsonl"):
        (problem,) = sampled([tmp_path / "samples.jsonl"], worked)
        shares[worked is None] = [beginning.right for beginning in beginnings(problem) if beginning.text in lost]
    assert shares == {True: [0.0, 0.0, 0.0], False: [1.0, 0.0, 0.0]}


def test_figures_on_held_out_problems() -> None:
    energies = {(0, TEXTS[1]): 0.1, (0, "Tom has <<3*4=12>> eggs.\n#### 12"): 2.0, (0, "#### 3"): 0.5}
    figures = held_out_figures(energies, [PROBLEM])
    assert figures == {
        "gsm8k.auc": 1.0, "gsm8k.within": 1.0, "gsm8k.sample": 0.5, "gsm8k.majority": 1.0, "gsm8k.selected": 1.0, "gsm8k.weighted": 1.0,
        "gsm8k.problems": 1,
    }  # fmt: skip
    assert area_under_curve([1, 1, 1], [True, False, False]) == 0.5


def test_between_easy_and_hard_problems_nothing_is_told_apart_within() -> None:
    """Energies that know which problem is easy and nothing else have a good area under the curve over all samples, and none within."""
    easy = Sampled(0, "gsm8k", QUESTION, "1", True, (("#### 1", 3, True), ("#### 2", 1, False)))
    hard = Sampled(1, "gsm8k", QUESTION, "1", True, (("#### 1", 1, True), ("#### 2", 3, False)))
    energies = {(number, text): float(number) for number in range(2) for text in ("#### 1", "#### 2")}
    figures = held_out_figures(energies, [easy, hard])
    assert figures["gsm8k.auc"] == 0.75
    assert figures["gsm8k.within"] == 0.5


def test_the_worked_solution_judges_next_steps() -> None:
    worked = TEXTS[1]
    assert right_step("Tom has <<3*4=12>> eggs.", "", worked) is True
    assert right_step("Tom has <<3+4=7>> eggs.", "", worked) is False
    assert right_step("Tom has <<3*4=12>> eggs.", TEXTS[0], worked) is False  # again
    assert right_step("Tom has many eggs.", "", worked) is None
    assert right_step("#### 10", worked.rpartition("####")[0], worked) is True
    assert right_step("#### 12", TEXTS[0], worked) is False
    twice = "<<30/2=15>> a day.\nHe has <<30-15=15>> left.\n#### 15"  # two steps come to the same
    first, second = twice.splitlines(keepends=True)[:2]
    assert right_step(second, first, twice) is True
    assert right_step(second, first + second, twice) is False
    plain = "He has <<2+2=4>> tops.\nso 20/4 = 5 each\n#### 5"
    assert right_step("so 20/4 = 5 each\n", plain.splitlines(keepends=True)[0], plain) is True


def test_repetitions_and_unfinished_solutions_are_not_on_the_way() -> None:
    again = "<<48/2=24>> sold.\n" * 3
    over = "<<48/2=24>> sold.\n<<24+48=72>> sold.\nSo <<72-48=24>> more.\n#### 24"
    short = "<<48/2=24>> sold.\n<<24+48=72>> sold.\n"
    samples = ((again, 1, False), (over, 1, False), (short, 1, False))
    shares = shares_right(Sampled(0, "gsm8k", QUESTION, "72", False, samples, results=(Fraction(24), Fraction(72))))
    lines = again.splitlines(keepends=True)
    assert [shares["".join(lines[:count])][0] for count in (1, 2, 3)] == [1.0, 0.0, 0.0]
    assert shares["".join(over.splitlines(keepends=True)[:3])][0] == 0.0
    assert shares[short][0] == 0.0
    assert stopped("no break at the end <<1+1=2>>") == "no break at the end <<1+1=2>>\n#### 2"


STEPS = Sampled(3, "gsm8k steps", QUESTION, "10", True, (("<<12-2=10>> left.", 2, True), ("<<12+2=14>> eggs.\n", 1, False)), TEXTS[0])


def test_next_steps_are_judged_one_by_one_behind_what_was_written() -> None:
    found = [(beginning.text, beginning.right, beginning.step) for beginning in beginnings(STEPS)]
    assert found == [(TEXTS[0] + "<<12-2=10>> left.", 1.0, True), (TEXTS[0] + "<<12+2=14>> eggs.\n", 0.0, True)]
    figures = held_out_figures({(3, "<<12-2=10>> left."): 0.1, (3, "<<12+2=14>> eggs.\n"): 0.2}, [STEPS])
    assert figures["gsm8k steps.within"] == figures["gsm8k steps.selected"] == 1.0
    assert "gsm8k steps.majority" not in figures


def test_ranking_cares_for_differences_within_a_problem_only() -> None:
    odds = torch.tensor([0.0, 2.0, 5.0, 5.0])
    worth, problem = torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1])
    expected = torch.log1p(torch.exp(torch.tensor(-2.0)))
    assert torch.allclose(ranking_loss(odds, worth, problem), expected)
    assert torch.allclose(ranking_loss(odds + 7 * (problem == 0), worth, problem), expected)


def test_texts_in_a_tree_read_as_each_alone(tiny_folder: Path) -> None:
    """Two problems in one batch, one of them begun; every branch's states must not depend on the other branches, nor on padding."""
    model, tokenizer = load_causal(tiny_folder, torch.float32, "eager")

    def encoded(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    parts = [tree for problem in (PROBLEM, STEPS) for tree in trees(trunk_of(problem, encoded), sample_branches(problem, encoded), 640)]
    batch = padded(parts)
    head = torch.nn.Linear(int(model.config.hidden_size), 1)
    with torch.inference_mode():
        together = judgements(model, head, batch)[batch.ends]
        alone = []
        for part in parts:
            for branch in part.branches:
                ids = torch.tensor([[*part.trunk, *branch.ids]])
                alone.append(head(model.base_model(input_ids=ids).last_hidden_state[0, -1]))
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)
    assert batch.worth.tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert batch.tree.tolist() == [0, 0, 0, 1, 1]
    assert len(trees(parts[0].trunk, parts[0].branches, 1)) == 3


def test_next_steps_are_single_lines(tiny_folder: Path) -> None:
    """A model of random weights writes line breaks now and then; where one step is asked for, it ends there."""
    model, tokenizer = load_causal(tiny_folder, torch.float32)
    prompts = [tokenizer(QUESTION, add_special_tokens=False)["input_ids"]]

    def drawn(lines: int) -> list[str]:
        drawing = Drawing(model, tokenizer, 32, 3.0, 0, rows=32, most=200, longest=200, lines=lines)
        ((_, found),) = drawing.draw(prompts)
        return list(found.counts.elements())

    assert any("\n" in text for text in drawn(11))
    assert len(drawn(1)) == 32
    assert not any("\n" in text for text in drawn(1))


@pytest.mark.skipif(
    not fast_in_eight_bits() or training_precision(torch.device("cpu")) != torch.float32,
    reason="the processor has no VNNI, or does more of bfloat16: eight-bit integers are not used in training on it",
)
def test_drawing_in_eight_bits_is_nearly_the_same(tiny_folder: Path) -> None:
    model, tokenizer = load_causal(tiny_folder, torch.float32)
    ids = torch.tensor([tokenizer(QUESTION, add_special_tokens=False)["input_ids"]])
    lengths = torch.tensor([ids.shape[1]])
    with torch.inference_mode():
        exact, _ = Decoder(model, 300).read(ids, lengths)
        typical = typical_inputs(model, tokenizer, torch.device("cpu"))
        assert typical is not None
        rounded, _ = Decoder(model, 300, typical.largest).read(ids, lengths)
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).std() < 0.25 * exact.std()  # random weights multiply the hundredth of each layer


def test_a_problem_is_begun_with_whole_steps_of_the_worked_solution() -> None:
    problem = Labelled("gsm8k", 0, QUESTION, "10", False)
    found = {begun(problem, TEXTS[1], np.random.default_rng(seed)).before for seed in range(20)}
    assert found == {"", TEXTS[0], TEXTS[1].rpartition("####")[0]}


def test_shipped_verifiers_join_with_the_shipped_adapter_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("ADAPTER", "SENTENCE", "HIDDEN")}
    for name, path in paths.items():
        monkeypatch.setattr(assembly, name, path)
    paths["ADAPTER"].touch()
    paths["SENTENCE"].touch()
    assert assembly.chosen_adapter(None, None) == paths["ADAPTER"]
    monkeypatch.chdir(tmp_path)
    assert assembly.chosen_adapter(None, Path(paths["ADAPTER"].name)) == paths["ADAPTER"], "in whatever words"
    assert assembly.shipped_verifiers(paths["ADAPTER"]) == (paths["SENTENCE"], None)
    assert assembly.shipped_verifiers(assembly.chosen_adapter(tmp_path, None)) == (None, None)
    assert assembly.shipped_verifiers(tmp_path / "another.safetensors") == (None, None)


def test_answers_decide_what_is_right() -> None:
    assert right("<<3*4=12>>\n#### 12", "12")
    assert right("#### 1200.00", "1,200")
    assert not right("#### 13", "12")
    assert not right("there are 12", "12")  # no answer's line: it never came to an end


def test_training_problems_come_in_a_fixed_order_with_held_out_ones_first(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"q{n}", "answer": f"a\n#### {n}"}) for n in range(400)))
    first, second = (list(problems(path, 0.4, 0)) for _ in range(2))
    assert first == second
    recorded = [problem for problem in first if problem.source == "gsm8k"]
    assert [problem.index for problem in recorded[:300]] == list(range(100, 400))
    assert all(problem.held_out == (problem.index >= 100) for problem in recorded)
    assert sorted(problem.index for problem in recorded) == list(range(400))
    assert abs(sum(problem.source == "generated" for problem in first) / len(first) - 0.4) < 0.01


def test_the_sentence_verifier_is_trained_to_a_file_that_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right samples speak of eggs, wrong ones of nothing: so much a few seconds of training must find out."""
    lines = []
    for number in range(40):
        good, bad = f"There are <<{number}+2={number + 2}>> eggs.", "Nobody knows why."
        samples = [
            {"text": f"{good}\n#### {number + 2}", "count": 2, "right": True},
            {"text": f"{bad}\n#### {number}", "count": 2, "right": False},
        ]
        question = f"There are {number} eggs and 2 more. How many eggs are there?"
        lines.append({"source": "gsm8k", "question": question, "answer": str(number + 2), "held_out": number % 4 == 0, "samples": samples})
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    out = tmp_path / "verifier.safetensors"
    arguments = ["x", "--samples", str(tmp_path / "samples.jsonl"), "--out", str(out), "--epochs", "60", "--batch", "64"]
    monkeypatch.setattr(sys, "argv", arguments)
    maths_sentence_verifier.main()
    card = json.loads((tmp_path / "verifier.card.json").read_text())
    assert card["held_out"]["gsm8k.auc"] == 1.0
    scorer = SentenceVerifier(sentence_encoder(), out)
    for problem in sampled([tmp_path / "samples.jsonl"]):
        if problem.held_out:
            energies = scorer.energy(batch_of([text for text, _, _ in problem.samples]), Problem(problem.question))  # type: ignore[arg-type]
            assert energies[0] < energies[1]
