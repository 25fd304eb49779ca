"""How a claim becomes evidence: seeded runs that survive a kill, intervals, one JSON object, and a report drawn from it alone.

document = run_bench("manipulation", config, items, run_one, summarise, Path("result.json"), jobs=2)
write_report(Path("result.json"), Path("result.html"))
"""

from pcm_ros.evidence.bench import run_bench
from pcm_ros.evidence.document import Document
from pcm_ros.evidence.intervals import Comparison, Estimate, mean, paired, quantile, rate, ratio
from pcm_ros.evidence.journal import Journal, JournalError
from pcm_ros.evidence.report import write_report
from pcm_ros.evidence.workers import BenchError

__all__ = [
    "BenchError",
    "Comparison",
    "Document",
    "Estimate",
    "Journal",
    "JournalError",
    "mean",
    "paired",
    "quantile",
    "rate",
    "ratio",
    "run_bench",
    "write_report",
]
