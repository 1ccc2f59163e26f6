"""Fewer draws for an interval, which tests of the rules take by the thousand."""

from collections.abc import Iterator

import pytest

from modulab.claims import evidence
from modulab.results import intervals
from tests.report.figure_rules import check_every_figure

DRAWS = 4000


@pytest.fixture(autouse=True, scope="module")
def _rules_of_figures() -> Iterator[None]:
    yield from check_every_figure()


@pytest.fixture(autouse=True, scope="module")
def _draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (intervals, evidence):
            patch.setattr(module, "DRAWS", DRAWS)
        intervals.multiplier_weights.cache_clear()
        yield
    intervals.multiplier_weights.cache_clear()
