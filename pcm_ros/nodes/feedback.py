"""Events of the policy as feedback of the action."""

from __future__ import annotations

from pcm_ros import msg
from pcm_ros.nodes import conversions
from pcm_ros.tasks.manipulation.goal import Goal
from pcm_ros.tasks.manipulation.policy_events import Checked, Chosen, Event, Executed, Observed, Planning, action_of


def read_message(goal: Goal) -> msg.ConsensusState:
    """The goal that was read from a picture, as feedback."""
    return msg.ConsensusState(phase=msg.ConsensusState.READ, message=goal.text)


def state_message(event: Event) -> msg.ConsensusState | None:
    """An event of the policy as feedback; None for the last one, which is the result."""
    state = msg.ConsensusState()
    if isinstance(event, Observed):
        state.phase = state.OBSERVED
        labels = ", ".join(thing.label for thing in event.scene.objects) or "nothing"
        missing = "".join(f"; camera '{name}' is missing" for name in event.observation.missing)
        state.message = f"{len(event.observation.views)} views show {labels}{missing}"
    elif isinstance(event, Checked):
        state.phase, state.relation = state.CHECKED, str(event.relation)
        state.dropped, state.dropped_reasons = list(event.dropped), list(event.dropped.values())
        state.message = f"{event.relation}: {'holds' if event.holds else 'does not hold'} (p = {event.probability:.2f})"
    elif isinstance(event, Planning):
        iteration = event.iteration
        state.phase, state.relation, state.iteration = state.PLANNING, str(event.relation), iteration.index
        state.best, state.energy = conversions.pick_place_message(action_of(iteration.leader)), iteration.leader_energy
        state.scorers, state.energies = list(iteration.leader_energies), list(iteration.leader_energies.values())
        state.agreement, state.seconds = iteration.agreement, iteration.seconds["total"]
        state.dropped, state.dropped_reasons = list(iteration.dropped), list(iteration.dropped.values())
        state.message = f"stopped by {iteration.stopped}" if iteration.stopped else ""
    elif isinstance(event, Chosen):
        state.phase, state.relation, state.best = state.CHOSEN, str(event.relation), conversions.pick_place_message(event.action)
        label = event.context.scene.objects[event.category].label
        state.message = f"move the {label} by {event.motion[0] * 100:+.1f} cm x, {event.motion[1] * 100:+.1f} cm y"
    elif isinstance(event, Executed):
        state.phase, state.best = state.EXECUTED, conversions.pick_place_message(event.action)
        state.message = f"{event.result.code.name} {event.result.message}".strip()
    else:
        return None
    return state
