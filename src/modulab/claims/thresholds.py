"""Effect sizes that would matter, fixed before any experiment was run, and the same for all claims."""

from __future__ import annotations

MODULARITY = 0.1
"""A difference in structural modularity, whose scale runs from 0 (chance) to 1 (perfect)."""

ROBUSTNESS = 1.25
"""A factor between errors under a perturbation."""

GENERALISATION = 2.0
"""A factor between errors where training has not been."""

CONSTANT_ERROR = {"regression": 0.428, "identity": 1 / 3, "classification": 0.5, "digits": 0.9}
"""The error of the best constant answer, which networks must beat to have learned anything.

Regression: the mean variance of sin(pi x), 1/2, and 2 x^2 - 1, 4 (1/5 - 1/9), for x uniform on [-1, 1]; of x
itself, 1/3. Classification: half of the points of xor, and 1 - 0.16 pi = 0.497 of those of ring, are in the
rarer class. Digits: ten classes, nearly equally frequent.
"""

LEARNED_SHARE = 0.2
"""A network has learned its task if it makes less than this share of the error of the best constant answer."""

BUDGET_SHARE = {"regression": 0.01, "classification": 0.1, "digits": 0.1}
"""Clean error at which arms are matched, as a share of that of the best constant answer."""

RETENTION = 1.25
"""A factor between shares of learning that are lost."""

FORGETTING = 0.05
"""A rise of the other modules' error, as a share of the best constant answer's error."""


def learned(task: str) -> float:
    """Return the error below which a network has learned a task."""
    return LEARNED_SHARE * CONSTANT_ERROR[task]


def budget(task: str, share: float | None = None) -> float:
    """Return the clean error at which arms of a task are matched, or another share of a constant answer's error."""
    return (BUDGET_SHARE[task] if share is None else share) * CONSTANT_ERROR[task]
