"""What the closed loop may spend, and from where on it believes or doubts."""

from __future__ import annotations

from dataclasses import dataclass

from pcm_ros.tasks.manipulation.relation_scorer import CONTRAST, PRESENT


@dataclass(frozen=True)
class PolicyConfig:
    """Bounds and thresholds of the closed loop.

    Attributes:
        attempts: actions spent on one relation before giving up, 1..20. most_actions: in a whole run, 1..200.
        holds: probability from which a relation counts as true, 0..1. Below one half, because margins are stricter than the relations (see
            relation_margin): what is planned shall be clear, what is found may be close.
        present: log-odds below which a phrase's best object counts as not there. contrast: it does so too if perception's own name for that
            object has log-odds higher by more than this, unless those of the phrase reach CLEAR or that name is DOUBTFUL (`fit_logit`).
        unfamiliar: added to the log-odds of phrases with words that no expert knows from training: they are understood, if at all, with
            less confidence.
        expected: mean energy of the judges, nats, above which the best proposal is not worth an action, > 0.
        loose: energies of the stability scorers together above which nothing is put ON something else, nats, > 0. To stand on something
            costs 2, on a plate, a block or a can no more; on a duck's head or the neck of a bottle 3.4 and more.
        least_judges: views that must answer for a relation to be checked, >= 1.
    """

    attempts: int = 4
    most_actions: int = 40
    holds: float = 0.3
    present: float = PRESENT
    contrast: float = CONTRAST
    unfamiliar: float = 4.0
    expected: float = 4.0
    loose: float = 3.2
    least_judges: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 20 or not 1 <= self.most_actions <= 200:
            raise ValueError(f"attempts {self.attempts} must be 1..20 and most_actions {self.most_actions} 1..200")
        if not 0 < self.holds < 1 or self.least_judges < 1:
            raise ValueError(f"holds {self.holds} must be between 0 and 1, least_judges {self.least_judges} at least 1")
