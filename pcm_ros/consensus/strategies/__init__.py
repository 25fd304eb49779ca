"""What turns feedback into the next proposals: one module per strategy.

`CrossEntropy` and `Mppi` refit a sampling distribution (manipulation). A beam over partial sequences (text, mathematics) belongs into
`beam.py`, guidance by the gradient of the total energy (images, video) into `gradient.py`: each is a class with `update`.
"""

from pcm_ros.consensus.strategies.cross_entropy import CrossEntropy
from pcm_ros.consensus.strategies.mppi import Mppi
from pcm_ros.consensus.strategies.sampling_state import CrossEntropyState, Refit

__all__ = ["CrossEntropy", "CrossEntropyState", "Mppi", "Refit"]
