"""Differences that are rounding alone: sums of the same numbers in another order differ in their last bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_UNITS_IN_THE_LAST_PLACE = 8
_LEAST = 1e-15
"""Networks compute in single precision, and measures are of order 1: what is smaller than this is rounding."""


def rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each column the largest difference that may be due to rounding alone, given its largest value."""
    finite = np.where(np.isfinite(values), np.abs(values), 0.0)
    largest = finite.max(axis=0, initial=0.0)
    return np.maximum(_UNITS_IN_THE_LAST_PLACE * np.finfo(np.float64).eps * largest, _LEAST)


def without_rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a column without differences from 0, or between all values, that are due to rounding alone."""
    [least] = rounding(values[:, None])
    cleared = np.where(np.abs(values) <= least, 0.0, values)
    known = cleared[np.isfinite(cleared)]
    if known.size and np.ptp(known) <= least:
        return np.where(np.isfinite(cleared), np.median(known), cleared)
    return cleared
