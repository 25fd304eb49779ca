"""No deadline for property tests: how long an example takes says more about what else the machine does than about the code."""

from hypothesis import settings

settings.register_profile("pcm_ros", deadline=None)
settings.load_profile("pcm_ros")
