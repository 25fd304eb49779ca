"""Requests are checked before they are sent: an unchecked value of a wrong type would end the process in rosidl's C code."""

from __future__ import annotations

import numpy as np
import pytest

from pcm_ros import srv
from pcm_ros.services_client import checked_request


def test_fields_are_checked() -> None:
    request = checked_request(srv.SolveMath, question="2 + 3?", deadline=3, beam=2)
    assert (request.question, request.deadline, request.beam, request.id) == ("2 + 3?", 3.0, 2, "")
    request = checked_request(srv.SolveMath, deadline=np.float32(0.5), beam=np.int64(2))
    assert (type(request.deadline), request.deadline, type(request.beam), request.beam) == (float, 0.5, int, 2)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"beam": 2.5}, "'beam' is 2.5, of type float; allowed: an integer, 0 to 4294967295"),
        ({"beam": None}, "'beam' is None, of type NoneType"),
        ({"deadline": True}, "'deadline' field must be of type 'float'"),
        ({"question": 3}, "'question' field must be of type 'str'"),
        ({"foo": 1}, "SolveMath.srv has no foo; its fields are id, question, method"),
    ],
)
def test_what_does_not_fit_is_said(fields: dict[str, object], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        checked_request(srv.SolveMath, **fields)


@pytest.mark.parametrize("value", [-1, 2**32, np.int64(-1)])
def test_integers_out_of_range_are_refused_with_the_range(value: int) -> None:
    with pytest.raises(ValueError, match=rf"'beam' is {int(value)}; allowed: an integer, 0 to 4294967295"):
        checked_request(srv.SolveMath, beam=value)
