"""Why the robot refuses: a phrase means nothing that is there, the hand cannot take it, or not even the best plan is worth an action."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pcm_ros.consensus import Iteration
from pcm_ros.sight.words import unfamiliar_words
from pcm_ros.tasks.manipulation.context import Context, Target
from pcm_ros.tasks.manipulation.goal import Quantifier, RelationKind
from pcm_ros.tasks.manipulation.grasps import plan_grasps
from pcm_ros.tasks.manipulation.policy_config import PolicyConfig
from pcm_ros.tasks.manipulation.relation_scorer import degrees, fit_logit, fitting_numbers, log_odds, predicted_margins
from pcm_ros.tasks.manipulation.situation import Situation
from pcm_ros.tasks.manipulation.world_model import world_model

# Once found, a phrase stays found unless its log-odds fall below what is asked of it by this much: it may stand worse to see now.
FOUND_BEFORE = 2.0
# Of the likeliest object's probability of being the subject: what is less likely than this is not moved in its place.
SAME_SUBJECT = 0.1
# What was put ON something and did not stay there must stand safer by this the next time, nats.
FELL_ONCE = 0.8
# What is put within this of its place in an arrangement, metres, is there.
NEAR_TARGET = 0.03


def is_there(logit: float, confidence: float, config: PolicyConfig) -> bool:
    """Whether the object that fits a phrase best is what the phrase says.

    Args:
        logit: fused log-odds of the phrase for that object.
        confidence: 0..1, perception's for its own name of it (SceneObject.label_confidence); 0: it has none.
    """
    return fit_logit(logit, confidence, config.present, config.contrast) >= 0


class Doubts:
    """The doubts of one run.

    Args:
        judges: names of the scorers that say whether a relation holds.
    """

    def __init__(self, config: PolicyConfig, judges: Sequence[str]) -> None:
        self._config, self._judges = config, tuple(judges)
        self._found: set[str] = set()
        self._numbered: set[str] = set()

    def absent(self, context: Context, logits: Tensor) -> str | None:
        """Why a phrase fits nothing, or fewer objects than it speaks of. Once found, a phrase is not refused that soon again.

        Args:
            logits: (M, T) log-odds of the relation's texts for the scene's objects.
        """
        relation, scene = context.relation, context.scene
        there = ", ".join(sorted(thing.label for thing in scene.objects))
        generic = {noun.text for noun in relation.nouns if noun.generic}
        for column, text in enumerate(relation.texts):
            number = int(logits[:, column].argmax())
            logit, thing = float(logits[number, column]), scene.objects[number]
            forgiven = FOUND_BEFORE * (text in self._found) + self._config.unfamiliar * bool(unfamiliar_words(text))
            if text in generic or is_there(logit + forgiven, thing.label_confidence, self._config):
                self._found.add(text)
                continue
            return (
                f"no object looks like '{text}': the nearest is rather a {thing.label} (log-odds {logit:.1f}, as a {thing.label} "
                f"{log_odds(thing.label_confidence):.1f}); on the table: {there}"
            )
        noun = relation.nouns[0]
        if not relation.plural or relation.subject in self._numbered or noun.count == 0:
            return None
        fitting, others = fitting_numbers(relation, logits, scene)
        # "Both mugs left of the red mug" may be said of two or of three mugs; "two mugs left of the red mug" needs two that are not it.
        exact = noun.quantifier == Quantifier.ALL and noun.measure is None
        if noun.count not in (fitting, others) if exact else others < noun.count:
            return f"'{relation.subject}' speaks of {noun.count} objects, but {others} look like '{noun.text}'; on the table: {there}"
        self._numbered.add(relation.subject)
        return None

    @staticmethod
    def ungraspable(context: Context, now: Situation) -> str | None:
        """Why the hand cannot take what is to be moved; None: it can, or the generator will say why not."""
        meant = now.meant[context.relation][:, 0]
        graspable = plan_grasps(world_model(context)).graspable(len(meant))
        if not graspable.any() or bool(graspable[meant >= 0.5 * meant.max()].any()):
            return None
        thing = context.scene.objects[int(meant.argmax())]
        short, long, height = (100 * extent for extent in thing.extents)
        opening = 100 * context.scene.limits.gripper.max_opening
        return (
            f"the gripper cannot take '{context.relation.subject}', which is {short:.1f} x {long:.1f} cm and {height:.1f} cm high: wider "
            f"than it opens ({opening:.1f} cm), lower than about 2 cm, out of reach, cut by the workspace's border, or too close to "
            "something else"
        )

    def of_plan(self, context: Context, last: Iteration, now: Situation, fell: bool) -> str | None:
        """Why the best proposal is not worth an action: it cannot be done, moves something else, or does not lead to what is wanted.

        Args:
            fell: whether the relation was brought about before and did not last.
        """
        relation, energies = context.relation, last.leader_energies
        if not last.leader_energy < float("inf"):
            vetoes = {name: int(torch.isposinf(last.table.energies[:, n]).sum()) for n, name in enumerate(last.table.names)}
            blocking = sorted((name for name, count in vetoes.items() if count), key=lambda name: (-vetoes[name], name))
            return f"no feasible way to make '{relation}' true was found; ruled out by: {', '.join(blocking) or 'the generator'}"
        meant = now.meant[relation]
        moved = int(last.leader.category[0])
        if context.target is not None:
            return _astray(context, context.target, last)
        if float(meant[moved, 0]) < SAME_SUBJECT * float(meant[:, 0].max()):
            return f"no feasible way to move '{relation.subject}' was found: every proposal is to move something else or to fail"
        outcome = world_model(context).predict_scene(last.leader.category, last.leader.extras["motion"])
        truth = float(degrees(relation, torch.sigmoid(predicted_margins(relation, outcome)), meant)[0, moved])
        if truth < self._config.holds:
            place = " and ".join(repr(phrase) for phrase in relation.references)
            why = {RelationKind.IN: f"it does not go into {place}", RelationKind.ON: f"it cannot rest on {place}"}.get(
                relation.kind, f"there is no free place like that at {place}"
            )
            return (
                f"'{relation}' cannot be made true: {why}; the best proposal is predicted to fulfil it with probability {truth:.2f} < "
                f"{self._config.holds:g}"
            )
        loose = sum(value for name in ("stability", "twin") if (value := energies.get(name, 0.0)) == value)
        allowed = self._config.loose - FELL_ONCE * fell
        if relation.kind == RelationKind.ON and loose > allowed:
            return f"'{relation}' cannot be made true: it would not stand there safely (stability {loose:.1f} nats > {allowed:g})"
        votes = [energy for name in self._judges if (energy := energies.get(name)) is not None and energy == energy]
        if votes and sum(votes) / len(votes) > self._config.expected:
            return (
                f"not even the best proposal is expected to make '{relation}' true: mean energy of the views "
                f"{sum(votes) / len(votes):.1f} nats > {self._config.expected:g}"
            )
        return None


def _astray(context: Context, target: Target, last: Iteration) -> str | None:
    """Why the best proposal does not lead to the target."""
    center = context.scene.objects[target.category].center[:2] + last.leader.extras["motion"][0, :2].numpy()
    away = float(np.linalg.norm(center - (target.x, target.y)))
    if int(last.leader.category[0]) == target.category and away <= NEAR_TARGET:
        return None
    return f"no feasible way was found to put '{context.relation.subject}' where it leaves room for the rest ({100 * away:.1f} cm off)"
