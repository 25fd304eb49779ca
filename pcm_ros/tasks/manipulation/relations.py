"""Spatial relations as smooth margins in the ground plane: positive where a relation holds with room to spare.

Pure geometry, batched and differentiable almost everywhere. Offsets are given in the speaker's axes: `left` and `forward` of
`WorkcellLimits`, metres, so that "left of" means a positive left offset and "behind" a positive forward one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcm_ros.tasks.manipulation.goal import RelationKind
from pcm_ros.tasks.manipulation.workcell import WorkcellLimits

# One unit of margin is one centimetre sideways; heights are known better than that, so half a centimetre of height is a unit.
METRES_PER_UNIT = 0.01
HEIGHT_PER_UNIT = 0.005
# A relation that holds by this many units holds: being deeper inside earns nothing more (sigmoid(5) = 0.993).
SATURATION = 5.0

# What holds by definition (a 45 degree cone, 3 cm along the axis, gap <= 6 cm, 20..80 % of the segment, <= 5 cm beside it) shrunk
# by a safety margin, so that an error of perception or of the hand does not leave the relation.
CONE_SLOPE = math.tan(math.radians(38.0))
LEAST_OFFSET = 0.04
NEXT_TO_GAP = 0.05
BETWEEN_RANGE = (0.25, 0.75)
BETWEEN_LATERAL = 0.04
FAR = 0.25

_DIRECTIONS = {
    RelationKind.LEFT_OF: (1.0, 0.0),
    RelationKind.RIGHT_OF: (-1.0, 0.0),
    RelationKind.BEHIND: (0.0, 1.0),
    RelationKind.IN_FRONT_OF: (0.0, -1.0),
}


def ground_offset(limits: WorkcellLimits, offset: Tensor) -> Tensor:
    """World offsets (..., 2) x, y in metres as (..., 2) offsets to the speaker's left and forward, metres."""
    axes = torch.tensor([limits.left, limits.forward], dtype=offset.dtype, device=offset.device)
    return offset @ axes.T


def soft_minimum(*values: Tensor) -> Tensor:
    """Smooth minimum of tensors that broadcast: never above the true minimum, at most log(count) below it."""
    return -torch.logsumexp(-torch.stack(torch.broadcast_tensors(*values)), dim=0)


def footprint_gap(offset: Tensor, subject_size: Tensor, reference_size: Tensor) -> tuple[Tensor, Tensor]:
    """Distance between two footprints, as boxes and as ellipses of the same extent; negative where they overlap.

    Args:
        offset: (..., 2) between the centres, metres, in the axes of the sizes.
        subject_size, reference_size: (..., >= 2) extents, metres.

    Returns:
        least and greatest of the two estimates (...,): round things are further apart diagonally than their boxes say.
    """
    half = (subject_size[..., :2] + reference_size[..., :2]) / 2
    beside = offset.abs() - half
    box = beside.clamp(min=0).square().sum(-1).add(1e-12).sqrt() + beside.amax(-1).clamp(max=0)
    distance = offset.square().sum(-1).add(1e-12).sqrt()
    direction = offset / distance[..., None]
    ellipse = distance - (half * direction).square().sum(-1).add(1e-12).sqrt()
    return torch.minimum(box, ellipse), torch.maximum(box, ellipse)


def _saturated(*conditions: Tensor) -> Tensor:
    return soft_minimum(*conditions, torch.full_like(conditions[0], SATURATION))


def relation_margin(
    kind: RelationKind,
    offset: Tensor,
    height: Tensor,
    subject_size: Tensor,
    reference_size: Tensor,
    second_offset: Tensor | None = None,
    second_size: Tensor | None = None,
) -> Tensor:
    """How clearly a relation holds: `sigmoid(margin)` is a probability-like degree of truth.

    The margin is the smooth minimum of the relation's conditions, each (value - threshold) / 1 cm (heights: / 0.5 cm), saturated at
    SATURATION. The thresholds are stricter than the relation's definition, so margin > 0 implies the relation by some millimetres
    to a centimetre. Leading dimensions broadcast.

    Args:
        kind: the relation.
        offset: (..., 2) subject's centre minus reference's centre along (left, forward), metres.
        height: (...,) subject's lowest point minus reference's lowest point, metres.
        subject_size, reference_size: (..., 3) extents along (left, forward, up), metres.
        second_offset: (..., 2) subject's centre minus the second reference's centre; second_size: (..., 3) its extents. Needed by BETWEEN
            only.

    Returns:
        (...,) margin, dimensionless, at most SATURATION.

    Raises:
        ValueError: BETWEEN without second_offset and second_size.
    """
    if kind in _DIRECTIONS:
        ahead, beside = _DIRECTIONS[kind]
        along = offset[..., 0] * ahead + offset[..., 1] * beside
        across = (offset[..., 0] * beside - offset[..., 1] * ahead).abs()
        # Something that stands on or in the reference, or reaches over it, is not beside it.
        least, _ = footprint_gap(offset, subject_size, reference_size)
        apart = torch.maximum(least, height.abs() * 0 - 0.02) + 0.015
        return _saturated(
            (along * CONE_SLOPE - across) / METRES_PER_UNIT, (along - LEAST_OFFSET) / METRES_PER_UNIT, apart / HEIGHT_PER_UNIT
        )
    half = reference_size[..., :2] / 2
    if kind == RelationKind.ON:
        # An ellipse inscribed in the box and shrunk: right for round things, careful for square ones.
        radius = (offset / (half * 0.6).clamp(min=0.008)).square().sum(-1).add(1e-9).sqrt()
        inside = (1 - radius) * half.amin(-1).clamp(min=0.01)
        # Not higher than the top by more than 12 mm, nor lower by more than 25: what stands on a plate stands below its rim, and how high
        # something thin is, or the underside of what stands on it, is known to some millimetres only.
        resting = 0.0185 - (height - reference_size[..., 2] + 0.0065).abs()
        return _saturated(inside / HEIGHT_PER_UNIT, resting / HEIGHT_PER_UNIT)
    if kind == RelationKind.IN:
        # Half a centimetre for the wall; the centre within 70 % of what is left.
        inner = (half - 0.005).clamp(min=0.01) * 0.7
        inside = (1 - (offset / inner).square().sum(-1).add(1e-9).sqrt()) * inner.amin(-1)
        # Deeper than the rim by a fifth of the depth: what lies on something else in the container is in it too.
        below_rim = reference_size[..., 2] - height - torch.clamp(reference_size[..., 2] * 0.2, min=0.012)
        above_bottom = height + 0.01
        # A bowl that caps a bottle's neck is not in the bottle. One bowl goes into another of its size, hence the tenth and the centimetre.
        fits = 1.1 * reference_size[..., :2].amax(-1) + 0.01 - subject_size[..., :2].amin(-1)
        return _saturated(inside / HEIGHT_PER_UNIT, below_rim / HEIGHT_PER_UNIT, above_bottom / HEIGHT_PER_UNIT, fits / METRES_PER_UNIT)
    if kind == RelationKind.NEXT_TO:
        least, greatest = footprint_gap(offset, subject_size, reference_size)
        return _saturated(
            (NEXT_TO_GAP - greatest) / METRES_PER_UNIT, (least + 0.01) / HEIGHT_PER_UNIT, (0.03 - height.abs()) / HEIGHT_PER_UNIT
        )
    if kind == RelationKind.BETWEEN:
        if second_offset is None or second_size is None:
            raise ValueError("relation between needs second_offset and second_size: where the second reference is, and how large")
        segment = offset - second_offset  # from the first reference to the second
        length = segment.square().sum(-1).add(1e-12).sqrt()
        unit = segment / length[..., None]
        along = (offset * unit).sum(-1)
        lateral = (offset[..., 0] * unit[..., 1] - offset[..., 1] * unit[..., 0]).abs()
        low, high = BETWEEN_RANGE
        # What stands on or in one of the two is not between them.
        gaps = [footprint_gap(offset, subject_size, reference_size)[0], footprint_gap(second_offset, subject_size, second_size)[0]]
        return _saturated(
            (along - low * length) / METRES_PER_UNIT,
            (high * length - along) / METRES_PER_UNIT,
            (BETWEEN_LATERAL - lateral) / METRES_PER_UNIT,
            *((gap + 0.015) / HEIGHT_PER_UNIT for gap in gaps),
        )
    raise ValueError(f"relation '{kind}' has no geometry; allowed: {[str(k) for k in RelationKind]}")


def placement_preference(kind: RelationKind, offset: Tensor, subject_size: Tensor, reference_size: Tensor) -> Tensor:
    """Penalty (...,) >= 0 in nats for placements that fulfil a direction but that nobody would choose: far away, or touching.

    A tie-breaker beside `relation_margin`, not a part of it: "left of" is true at 40 cm, only worse. 0 for a gap of 2 cm or more and a
    distance up to FAR; 1 nat per 5 cm beyond, 2 nats for footprints that touch. ON and IN: 0 at the middle, 1 nat per 5 cm. BETWEEN: 0.

    Args: as `relation_margin`.
    """
    distance = offset.square().sum(-1).add(1e-12).sqrt()
    if kind in (RelationKind.ON, RelationKind.IN):
        return distance / 0.05
    if kind == RelationKind.BETWEEN:
        return torch.zeros_like(distance)
    least, _ = footprint_gap(offset, subject_size, reference_size)
    return torch.relu(distance - FAR) / 0.05 + 2.0 * torch.relu(0.02 - least).clamp(max=0.02) / 0.02
