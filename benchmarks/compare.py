"""Two runs of the same items against each other: the difference of their success, paired, with an exact test."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pcm_ros.evidence import Comparison, Document, Estimate, paired, rate
from pcm_ros.evidence.document import installed_versions, this_machine, typed_command


def compare(first: Path, second: Path, field: str = "success") -> tuple[Document, Comparison]:
    """Pair the records of two documents by their id.

    Args:
        first, second: JSON files of benches. field: of the records, true or false; an item that raised counts as false.

    Returns:
        A document with the results `first`, `second` (rates over the common items), `difference` (first - second), `p_value` (McNemar,
        exact, two-sided; without interval), `only_first`, `only_second` (counts), and the comparison itself.

    Raises:
        ValueError: not the JSON of a bench, no id in both, or no record with the field.
    """
    documents = [Document.load(path) for path in (first, second)]
    for path, document in zip((first, second), documents, strict=True):
        if not any(field in record for record in document.records):
            names = sorted({name for record in document.records for name, value in record.items() if isinstance(value, bool)})
            raise ValueError(f"no record of {path} has the field '{field}'; true-or-false fields there: {', '.join(names) or 'none'}")
    outcomes = [document.outcomes(field) for document in documents]
    common = [identity for identity in outcomes[0] if identity in outcomes[1]]
    if not common:
        raise ValueError(f"{first} and {second} have no record in common: run both with the same suite, seed and number of episodes")
    a, b = ({identity: outcome[identity] for identity in common} for outcome in outcomes)
    comparison = paired(a, b)
    alone = [len(outcome) - len(common) for outcome in outcomes]
    config: dict[str, Any] = {"first": str(first), "second": str(second), "field": field, "left_out": alone}
    for name in sorted({*documents[0].config, *documents[1].config} - {"clips"}):
        values = [document.config.get(name) for document in documents]
        if values[0] != values[1]:
            config[f"differs.{name}"] = values
    results = {
        "first": rate(list(a.values())),
        "second": rate(list(b.values())),
        "difference": comparison.difference,
        "p_value": Estimate(comparison.p_value, math.nan, math.nan, len(common)),
        "only_first": Estimate(comparison.only_a, math.nan, math.nan, len(common)),
        "only_second": Estimate(comparison.only_b, math.nan, math.nan, len(common)),
    }
    records = [{"id": identity, "seconds": 0.0, "first": a[identity], "second": b[identity]} for identity in common]
    return Document("compare", typed_command(), config, installed_versions(), this_machine(), 0.0, results, records), comparison
