"""The tasks by name. What they are made of is re-exported: this module is where a task of one's own is made and registered."""

from __future__ import annotations

from pcm_ros.sim.episodes import Disturbance, Episode, Notes, Task
from pcm_ros.sim.feasibility import achievable, achievable_spots, can_go_into, can_stand_on
from pcm_ros.sim.impossible import ImpossibleTask
from pcm_ros.sim.picture_goal import PictureTask
from pcm_ros.sim.relation_tasks import RELATIONS, DemoTask, FreeTask, RelationTask
from pcm_ros.sim.suites import ClutterTask, DisturbedTask, UnseenTask, WordsTask
from pcm_ros.sim.wording import instruct

__all__ = [
    "RELATIONS",
    "ClutterTask",
    "DemoTask",
    "Disturbance",
    "DisturbedTask",
    "Episode",
    "FreeTask",
    "ImpossibleTask",
    "Notes",
    "PictureTask",
    "RelationTask",
    "Task",
    "UnseenTask",
    "WordsTask",
    "achievable",
    "achievable_spots",
    "can_go_into",
    "can_stand_on",
    "get_task",
    "instruct",
    "register",
    "task_names",
]

_TASKS: dict[str, Task] = {}


def register(task: Task) -> None:
    """Make a task available by its name. Raises ValueError if the name is taken."""
    if task.name in _TASKS:
        raise ValueError(f"a task named '{task.name}' exists already; choose another name")
    _TASKS[task.name] = task


def task_names() -> tuple[str, ...]:
    """Names of all registered tasks, sorted."""
    return tuple(sorted(_TASKS))


def get_task(name: str) -> Task:
    """The registered task of a name. Raises ValueError with the known names otherwise."""
    try:
        return _TASKS[name]
    except KeyError:
        raise ValueError(f"task '{name}' is not known; registered: {', '.join(task_names())}") from None


for _task in (
    DemoTask(),
    FreeTask(),
    RelationTask("relations-1", 1, (3, 5)),
    RelationTask("relations-2", 2, (4, 5)),
    RelationTask("relations-3", 3, (5, 6)),
    WordsTask(),
    UnseenTask(),
    ClutterTask(),
    DisturbedTask(),
    ImpossibleTask(),
    PictureTask(),
):
    register(_task)
