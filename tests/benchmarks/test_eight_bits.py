"""What eight-bit integers cost and gain is measured, and what can't be measured is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import eight_bits
from pcm_ros.models.eight_bit_linear import fast_in_eight_bits
from pcm_ros.models.loading import fast_precision

pytestmark = pytest.mark.skipif(not fast_in_eight_bits(), reason="the processor has no VNNI: eight-bit integers are not used on it")
PROBLEM = {
    "question": "Tom has 3 boxes of 12 eggs and eats 4. How many eggs are left?",
    "answer": "Tom has 3*12=<<3*12=36>>36 eggs.\nThere are 36-4=<<36-4=32>>32 eggs left.\n#### 32",
}


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["eight_bits.py", *arguments])
    return eight_bits.main()


def test_both_models_read_and_write_the_same_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "train.jsonl", tmp_path / "eight_bits.json"
    data.write_text(f"{json.dumps(PROBLEM)}\n" * 2)
    monkeypatch.setattr(eight_bits, "TURNS", 2)
    assert called(monkeypatch, "--data", str(data), "--limit", "2", "--json", str(out)) == 0
    found = json.loads(out.read_text())
    exact, rounded = (found[f"nats_per_token.{name}"]["value"] for name in ("float32", "eight_bits"))
    assert 0 < exact < 2, "the adapter knows such problems"
    assert rounded == pytest.approx(exact, abs=0.1)
    assert rounded != exact
    plain = str(fast_precision()).removeprefix("torch.")
    assert all(found[f"{what}: {plain} / eight bits, seconds"]["value"] > 0 for what in ("writing", "reading"))


@pytest.mark.parametrize(("arguments", "message"), [(("--data", "nothing.jsonl"), "does not exist"), (("--limit", "1"), "allowed: >= 2")])
def test_bad_arguments_are_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps(PROBLEM))
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, "--data", str(data), *arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
