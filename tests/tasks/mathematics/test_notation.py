"""GSM8K's notation in short form."""

from __future__ import annotations

import pytest

from pcm_ros.tasks.mathematics.notation import compact, display, prompt, written


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 24", "Natalia sold <<48/2=24>> clips in May.\n#### 24"),
        ("Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.", "Weng earns $<<12/60=0.2>> per minute."),
        ("half is $400/2=$<<400/2=200>>200.", "half is $<<400/2=200>>."),
        ("It costs 2 x (3 + 4) = $<<2*(3+4)=14>>14.00 in all", "It costs $<<2*(3+4)=14>> in all"),
        ("2 wheels * 10ml =<<2*10=20>>20ml of oil", "2 wheels * 10ml =<<2*10=20>>ml of oil"),
        ("because 20*5=<<20*5=100>>100\n20 of them", "because <<20*5=100>>\n20 of them"),
        ("no equation", "no equation"),
        ("a\n\n  b  c\n", "a\nb c"),
    ],
)
def test_compact(long: str, short: str) -> None:
    assert compact(long) == short


def test_written_and_displayed() -> None:
    assert written(["They have <<2+3=5>> eggs."], "5") == "They have <<2+3=5>> eggs.\n#### 5"
    assert display("They have <<2+3=5>> eggs, <<10/5=2>> each.") == "They have 2+3 = 5 eggs, 10/5 = 2 each."


def test_prompt_keeps_a_question_to_one_line() -> None:
    assert prompt("How many?\nAnswer:\n#### 7\n") == "Question: How many? Answer: #### 7\nAnswer:\n"
