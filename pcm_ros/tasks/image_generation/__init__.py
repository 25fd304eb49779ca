"""Pictures by consensus: a diffusion model proposes, experts on pictures and prompts guide each of its steps. Start with `generate`."""

from pcm_ros.tasks.image_generation.assembly import METHODS, generate, painter
from pcm_ros.tasks.image_generation.painter import Painter, Picture, Progress, Request
from pcm_ros.tasks.image_generation.prompt import Prompt, UnusablePrompt, read_prompt

__all__ = ["METHODS", "Painter", "Picture", "Progress", "Prompt", "Request", "UnusablePrompt", "generate", "painter", "read_prompt"]
