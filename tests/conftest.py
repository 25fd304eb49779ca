"""Property tests run the same examples each time and without deadlines: how long one takes says more about what else the machine does.

New examples are looked for with `pytest --hypothesis-profile=explore`.
"""

from hypothesis import settings

settings.register_profile("pcm_ros", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("pcm_ros")
