"""Iterative consensus of an ensemble of pre-trained models: the engine. It knows tensors; no task, no ROS, no simulator.

A generator proposes, an ensemble of scorers gives each proposal an energy (lower is better), a strategy turns that into the next proposals,
and the loop runs until the ensemble agrees (Li et al., "Composing Ensembles of Pre-trained Models via Iterative Consensus", ICLR 2023,
arXiv 2210.11522). Read `loop.py` first.
"""

from pcm_ros.consensus.batch import Batch
from pcm_ros.consensus.cascade import Cascade
from pcm_ros.consensus.energies import ScoreTable, aggregated, normalised
from pcm_ros.consensus.ensemble import Ensemble, QuorumError, Scorer
from pcm_ros.consensus.loop import Consensus, Generator, Iteration, Stop, Strategy, mixed_seed
from pcm_ros.consensus.strategies import Beam, BeamState, CrossEntropy, CrossEntropyState, Gradient, GradientState, Mppi, Refit

__all__ = [
    "Batch",
    "Beam",
    "BeamState",
    "Cascade",
    "Consensus",
    "CrossEntropy",
    "CrossEntropyState",
    "Ensemble",
    "Generator",
    "Gradient",
    "GradientState",
    "Iteration",
    "Mppi",
    "QuorumError",
    "Refit",
    "ScoreTable",
    "Scorer",
    "Stop",
    "Strategy",
    "aggregated",
    "mixed_seed",
    "normalised",
]
