"""What turns feedback into the next proposals: one module per strategy.

`CrossEntropy` and `Mppi` refit a sampling distribution (manipulation). `Beam` keeps partial sequences (mathematics, text). `Gradient`
follows the gradient of the total energy (images, video). Each is a class with `update`.
"""

from pcm_ros.consensus.strategies.beam import Beam, BeamState
from pcm_ros.consensus.strategies.cross_entropy import CrossEntropy
from pcm_ros.consensus.strategies.gradient import Gradient, GradientState
from pcm_ros.consensus.strategies.mppi import Mppi
from pcm_ros.consensus.strategies.sampling_state import CrossEntropyState, Refit

__all__ = ["Beam", "BeamState", "CrossEntropy", "CrossEntropyState", "Gradient", "GradientState", "Mppi", "Refit"]
