"""Questions about video clips, answered by consensus. `answer(clip, question)` is what most people need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcm_ros.tasks.video_qa.answerer import Answer


def answer(*arguments: Any, **options: Any) -> Answer:
    """See `assembly.answer`; the models are imported when it is called."""
    from pcm_ros.tasks.video_qa.assembly import answer as answered

    return answered(*arguments, **options)
