"""Requests are checked before they are sent: an unchecked value of a wrong type would end the process in rosidl's C code."""

from __future__ import annotations

import pytest

from pcm_ros import srv
from pcm_ros.services_client import checked_request


def test_fields_are_checked() -> None:
    request = checked_request(srv.SolveMath, question="2 + 3?", deadline=3, beam=2)
    assert (request.question, request.deadline, request.beam, request.id) == ("2 + 3?", 3.0, 2, "")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"beam": 2.5}, "'beam' field must be of type 'int'"),
        ({"beam": -1}, "'beam' field must be an unsigned integer"),
        ({"question": 3}, "'question' field must be of type 'str'"),
        ({"foo": 1}, "SolveMath.srv has no foo; its fields are id, question, method"),
    ],
)
def test_what_does_not_fit_is_said(fields: dict[str, object], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        checked_request(srv.SolveMath, **fields)
