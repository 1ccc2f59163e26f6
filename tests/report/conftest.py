"""Every figure that the tests of this folder write keeps the rules of all figures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.report.figure_rules import check_every_figure


@pytest.fixture(autouse=True)
def _rules_of_figures() -> Iterator[None]:
    yield from check_every_figure()
