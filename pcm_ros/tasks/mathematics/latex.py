r"""LaTeX of solutions in the signs in which people type: 3 \times 4 as 3 × 4, 2\frac{1}{2} as 2 1/2, 1{,}200 as 1,200."""

from __future__ import annotations

import re

_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(?P<top>[^{}\n]{1,60}?)\s*\}\s*\{\s*(?P<bottom>[^{}\n]{1,60}?)\s*\}|(?P<short>\d\d))")
_GROUPED = re.compile(r"(?<=\d)(?:\{,\}|,?\\[!,])(?=\d{3}(?!\d))")
"""What stands between thousands: 1{,}200, 1,\\!200, 1\\,200."""
_SIGNS = (
    (re.compile(r"\\times(?![a-zA-Z]) ?"), "× "),
    (re.compile(r"\\cdot(?![a-zA-Z]) ?"), "· "),
    (re.compile(r"\\div(?![a-zA-Z]) ?"), "÷ "),
    (re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[()\[\]]"), ""),
    (re.compile(r"\\([$%])"), r"\1"),
)
_FRAMED = re.compile(r"\\(?:boxed|text|textbf|mathrm)\s*\{([^{}\n]{0,60})\}")


def without_latex(text: str) -> str:
    """The text in plain signs; boxes stay, since they say that the answer is in them. Without a backslash or a brace it is as it was."""
    if "\\" not in text and "{" not in text:
        return text
    text = _GROUPED.sub(",", _FRACTION.sub(_fraction, text))
    for pattern, sign in _SIGNS:
        text = pattern.sub(sign, text)
    return text


def unframed(text: str) -> str:
    r"""The text without boxes and other frames around words and numbers: \boxed{7}, \text{ eggs}."""
    return _FRAMED.sub(r" \1", text) if "\\" in text else text


def _fraction(found: re.Match[str]) -> str:
    """In brackets where what stands beside it would take it to pieces."""
    top, bottom = (found["top"], found["bottom"]) if found["short"] is None else (found["short"][0], found["short"][1])
    if not (top.isdecimal() and bottom.isdecimal()):
        return f"(({top})/({bottom}))"
    before, behind = found.string[: found.start()].rstrip(), found.string[found.end() :].lstrip()
    bound = before.endswith(("/", "÷", "\\div", "^")) or behind.startswith("^")
    apart = " " if before and found.start() == len(before) else ""  # of 2\frac{1}{2} the 2
    return f"({top}/{bottom})" if bound else f"{apart}{top}/{bottom}"
