"""The tasks that services_node serves: a module and a line for each. Imports must be quick: models are loaded by the first request."""

from __future__ import annotations

from collections.abc import Mapping

from pcm_ros.nodes.services.image_generation import ImageGeneration
from pcm_ros.nodes.services.mathematics import Mathematics
from pcm_ros.nodes.services.task import ServedTask
from pcm_ros.nodes.services.video_qa import VideoQuestions

TASKS: Mapping[str, type[ServedTask]] = {task.name: task for task in (ImageGeneration, Mathematics, VideoQuestions)}
