"""What the arm and the objects allow: what stands on or fits into what, where an object can be put, whether fingers find room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pcm_ros.sim.judge import fits, in_direction
from pcm_ros.sim.objects import ObjectSpec
from pcm_ros.sim.world import PANDA_LIMITS, Placement, clear_of, within_reach
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.workcell import Array, WorkcellLimits


def can_stand_on(subject: ObjectSpec, reference: ObjectSpec) -> bool:
    """Whether the subject stands safely on the reference: a base with most of its circle on a flat top."""
    if not reference.flat_top:
        return False
    base = {"block": min(subject.dimensions[:2]) / 2, "mug": subject.dimensions[0] * 0.9, "bowl": subject.dimensions[0] * 0.6}.get(
        subject.kind, subject.dimensions[0]
    )
    if subject.variant and subject.kind in ("mug", "bowl"):
        base = subject.dimensions[0] * subject.dimensions[2] * subject.narrowness
    if reference.kind == "plate":  # within the rim, on the plate's floor
        return base + 0.012 <= reference.dimensions[0] * reference.narrowness * 0.7
    top = min(reference.dimensions[:2]) / 2 if reference.kind == "block" else reference.dimensions[0]
    if reference.variant == "necked":
        top *= 0.8
    slender = subject.height / 2 <= 3 * base and reference.height <= 0.09
    return slender and top >= 0.019 and top >= 0.6 * base


def can_go_into(subject: ObjectSpec, container: ObjectSpec) -> bool:
    """Whether the subject and the fingers around it fit between the container's walls."""
    if container.kind != "bowl" or subject.kind not in ("block", "can"):
        return False
    half = max(subject.dimensions[:2]) / 2 if subject.kind == "block" else subject.dimensions[0]
    finger = 0.0145 + 0.007
    rim = container.dimensions[0] * container.narrowness
    return half + finger + 0.006 <= rim and subject.radius <= rim * container.dimensions[2] + 0.004


def possible(kind: RelationKind, subject: ObjectSpec, reference: ObjectSpec) -> bool:
    """Whether a relation can hold between two objects, wherever they stand."""
    if kind == RelationKind.ON:
        return can_stand_on(subject, reference)
    if kind == RelationKind.IN:
        return can_go_into(subject, reference)
    return True


def find(placements: Sequence[Placement], phrase: str) -> int:
    """Index of the first object that a phrase of the judge fits. Raises StopIteration if there is none."""
    return next(i for i, placement in enumerate(placements) if fits(placement.spec, phrase))


def stands(placements: Sequence[Placement], relation: Relation, limits: WorkcellLimits) -> bool:
    """Whether a direction relation holds between placements on the table; ON and IN never do."""
    axis = direction(relation.kind, limits)
    if axis is None:
        return False
    subject, reference = (np.asarray(placements[find(placements, phrase)].xy) for phrase in relation.phrases)
    return in_direction(subject - reference, axis)


def direction(kind: RelationKind, limits: WorkcellLimits) -> Array | None:
    """(2,) unit vector in world x, y from the reference towards the subject; None for relations without a direction."""
    forward, left = np.asarray(limits.forward), np.asarray(limits.left)
    axes = {
        RelationKind.LEFT_OF: left,
        RelationKind.RIGHT_OF: -left,
        RelationKind.BEHIND: forward,
        RelationKind.IN_FRONT_OF: -forward,
    }
    return axes.get(kind)


def achievable(
    placements: Sequence[Placement], relations: Sequence[Relation], limits: WorkcellLimits = PANDA_LIMITS, gap: float = 0.025
) -> bool:
    """Whether moving each relation's subject in turn, with room for the fingers, makes all relations true."""
    current = list(placements)
    stacked: set[int] = set()
    for number, relation in enumerate(relations):
        subject, reference = (find(current, phrase) for phrase in relation.phrases[:2])
        if direction(relation.kind, limits) is None:
            stacked |= {subject, reference}  # may not be moved again
            current[subject] = replace(current[subject], xy=current[reference].xy)
            continue
        spots = [] if subject in stacked else achievable_spots(current, relation, relations[:number], limits, gap)
        if not spots:
            return False
        current[subject] = replace(current[subject], xy=spots[len(spots) // 2])
    return True


def achievable_spots(
    placements: Sequence[Placement],
    relation: Relation,
    earlier: Sequence[Relation] = (),
    limits: WorkcellLimits = PANDA_LIMITS,
    gap: float = 0.025,
) -> list[tuple[float, float]]:
    """Places (x, y) on a 2 cm grid where a direction relation's subject stands free, within reach, and earlier relations stay true."""
    axis = direction(relation.kind, limits)
    if axis is None:
        raise ValueError(f"relation {relation.kind} has no direction; the subject's place is the reference's")
    subject, reference = (find(placements, phrase) for phrase in relation.phrases[:2])
    spec, origin = placements[subject].spec, np.asarray(placements[reference].xy)
    others = [placement for i, placement in enumerate(placements) if i != subject]
    low, high = np.add(limits.workspace_min[:2], spec.radius + 0.01), np.subtract(limits.workspace_max[:2], spec.radius + 0.01)
    found = []
    for x in np.arange(low[0], high[0], 0.02).tolist():
        for y in np.arange(low[1], high[1], 0.02).tolist():
            spot = np.array([x, y])
            # 1.5 cm inside the cone, so that a small error of the arm or of perception does no harm
            inside = in_direction(spot - origin - 0.015 * axis, axis)
            if inside and within_reach(spot, limits, spec.radius) and clear_of(spot, spec.radius + gap, others):
                after = [*placements[:subject], replace(placements[subject], xy=(x, y)), *placements[subject + 1 :]]
                if all(direction(r.kind, limits) is None or stands(after, r, limits) for r in earlier):
                    found.append((x, y))
    return found


def room_for_gripper(
    spec: ObjectSpec,
    xy: tuple[float, float],
    others: Sequence[Placement],
    limits: WorkcellLimits,
    yaw: float | None = None,
    floor: float = 0.0,
) -> bool:
    """Whether fingers and palm find room to take or release an object between others.

    Blocks and cans are held across their middle, vessels by a piece of their rim.

    Args:
        spec: the object. xy: where it stands. yaw: its rotation in radians; None: it may stand as it likes. floor: metres under it.
        others: what stands around it, on the table.
    """
    gripper = limits.gripper
    wide = gripper.finger_thickness + 0.007
    for turn in np.linspace(0, np.pi, 12, endpoint=False) if yaw is None or spec.kind != "block" else (yaw, yaw + np.pi / 2):
        along = np.array([np.cos(turn), np.sin(turn)])
        for side in (1.0, -1.0) if spec.kind in ("mug", "bowl") else (1.0,):
            if spec.kind in ("mug", "bowl"):
                rim = spec.dimensions[0] * side
                tool, fingers = np.asarray(xy) + rim * along, [np.asarray(xy) + (rim + side * (wide / 2 + 0.008)) * along]
            else:
                half = (min(spec.dimensions[:2]) / 2 if spec.kind == "block" else spec.dimensions[0]) + wide / 2
                tool, fingers = np.asarray(xy), [np.asarray(xy) + half * along, np.asarray(xy) - half * along]
            free = all(_outside(other, finger, along, (wide, gripper.finger_width)) for other in others for finger in fingers)
            low = [other for other in others if other.spec.height > floor + spec.height + 0.005]
            if free and all(_outside(other, tool, along, gripper.palm_size) for other in low):
                return True
    return False


def _outside(other: Placement, centre: Array, along: Array, size: tuple[float, float], margin: float = 0.004) -> bool:
    """Whether an object's footprint circle stays clear of a rectangle: its middle (2,), long axis (2,), extents along and across it."""
    offset = np.asarray(other.xy) - centre
    local = np.abs([offset @ along, along[0] * offset[1] - along[1] * offset[0]])
    return float(np.linalg.norm(np.maximum(local - np.asarray(size) / 2, 0.0))) > other.spec.radius + margin
