"""When a network stops, and when its learning rate falls: functions of its own monitored curve, and of nothing else.

A curve has a point at the end of each chunk of steps. Decisions are made there, so the steps within a chunk are
those of a network that never stops, whatever engine takes them, and a resumed network, whose curves its checkpoint
keeps, decides as it did before the break.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from modulab.config.settings import Training


def stopping_step(steps: Sequence[int], values: Sequence[float], training: Training) -> int | None:
    """Return the step at which a network stops, or None while it continues.

    It stops at the first point whose value is `stopping_threshold` or below, or that comes `patience` steps after the
    point of the least value so far. A value that is not finite does not count as progress, and before the first finite
    one there is nothing to wait for. `steps` are those of the points, rising, and `values` those of the curve.
    """
    least, at = math.inf, None
    for step, value in zip(steps, values, strict=True):
        if training.stopping_threshold is not None and value <= training.stopping_threshold:
            return step
        if value < least:
            least, at = value, step
        elif training.patience is not None and at is not None and step - at >= training.patience:
            return step
    return None


def plateau_factor(steps: Sequence[int], values: Sequence[float], training: Training) -> float:
    """Return the factor of the learning rate that a schedule of `plateau` has come to after these points; else 1.

    It is multiplied by `plateau_factor` at each point that comes `plateau_steps` after the point of the least value so
    far, or after the last such multiplication, whichever is later.
    """
    factor, least, since = 1.0, math.inf, 0
    if training.schedule != "plateau":
        return factor
    for step, value in zip(steps, values, strict=True):
        if value < least:
            least, since = value, step
        elif step - since >= training.plateau_steps:
            factor, since = factor * training.plateau_factor, step
    return factor
