"""Source sets: the margin that predicts mixing, and autoencoders that mix where it says so."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import modulab
from modulab.errors import ConfigError
from modulab.metrics.source_range import mixing_angles
from modulab.tasks.sources import mixing_margin, mixing_margins, source_sets
from tests.members import make_member


def lattice(kept: str, places: int) -> Tensor:
    """Return the points of a square grid on the unit square whose corners are cut."""
    line = torch.linspace(0, 1, places, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=2).flatten(0, 1)
    total = points.sum(dim=1)
    low, high = {"square": (0.0, 2.0), "both": (0.5, 1.5), "half": (0.5, 2.0), "more": (0.7, 2.0)}[kept]
    return points[(total >= low - 1e-9) & (total <= high + 1e-9)]


def margin_on_a_grid(points: Tensor, directions: int = 40_001) -> float:
    """Return the margin by trying directions one after another, as its definition says."""
    x = points.double() - points.double().mean(dim=0)
    (e1, e2), c = torch.minimum(-x.amin(dim=0), x.amax(dim=0)), (x[:, 0] * x[:, 1]).mean()
    angles = torch.linspace(0, 2 * math.pi, directions, dtype=torch.float64)
    w1, w2 = angles.cos(), angles.sin()
    offset = (w1[:, None] * x[:, 0] + w2[:, None] * x[:, 1]).amin(dim=1)
    return float((offset**2 - (w1**2 * e1**2 + w2**2 * e2**2 - 2 * c * w1 * w2)).min())


def test_margin_of_square_and_diamond_is_the_closed_form() -> None:
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    diamond = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    assert mixing_margin(square[None]).tolist() == pytest.approx([0.0], abs=1e-15)
    assert mixing_margin(diamond[None]).tolist() == pytest.approx([-1 / 8], abs=1e-12)


def test_margin_is_the_least_over_all_directions() -> None:
    sets = source_sets(list(range(40)), 12)
    found = mixing_margin(sets).tolist()
    tried = [margin_on_a_grid(points) for points in sets]
    # A grid of directions misses the minimum by less than its slope, at most 2, times half a step.
    assert all(
        -2 * math.pi / 40_000 <= exact - coarse <= 1e-12 for exact, coarse in zip(found, tried, strict=True)
    )


@pytest.mark.parametrize(
    ("kept", "margin"), [("square", 0.0), ("both", -0.1615), ("half", -0.0431), ("more", -0.0845)]
)
def test_margin_of_cut_squares_is_that_of_the_reference(kept: str, margin: float) -> None:
    # The reference has 41 x 41 points, whose pairs are too many for an exact minimum.
    assert margin_on_a_grid(lattice(kept, 41), 4001) == pytest.approx(margin, abs=1e-4)
    few = lattice(kept, 9)
    assert mixing_margin(few[None]).tolist() == pytest.approx([margin_on_a_grid(few)], abs=2e-4)


def test_margin_does_not_change_when_sources_are_exchanged_or_mirrored() -> None:
    sets = source_sets(list(range(50)), 20).double()
    margins = mixing_margin(sets)
    torch.testing.assert_close(mixing_margin(sets.flip(2)), margins, atol=1e-12, rtol=0)
    torch.testing.assert_close(mixing_margin(-sets), margins, atol=1e-12, rtol=0)
    torch.testing.assert_close(mixing_margin(3 * sets + 1), 9 * margins, atol=1e-11, rtol=0)


def test_margins_do_not_depend_on_how_many_sets_are_drawn_together() -> None:
    assert torch.equal(
        mixing_margins(list(range(20)), 16, 2, at_once=7), mixing_margins(list(range(20)), 16, 2)
    )


def test_angles_are_measured_from_the_nearest_axis() -> None:
    weights = torch.tensor([[[1.0, 0.0], [0.0, -2.0], [3.0, 3.0], [-1.0, math.sqrt(3.0)]]])
    torch.testing.assert_close(mixing_angles(weights), torch.tensor([[0.0, 0.0, 45.0, 30.0]]))


@pytest.mark.slow
def test_autoencoders_mix_the_sources_whose_margin_says_so(tmp_path: Path) -> None:
    mixed = mixing_margins(list(range(512)), 32).argsort()[:4].tolist()
    apart = [
        seed for seed, margin in enumerate(mixing_margins(list(range(8)), 32, corners=4)) if margin > -1e-9
    ][:4]
    results = modulab.train(
        [
            "experiment=range", "training.steps=60000", "trainer.engine=native", "trainer.progress=off",
            f"population.grid=[{{task.source_seed: {mixed}}}, {{task.source_seed: {apart}, task.corners: [4]}}]",
        ],
        folder=tmp_path,
    )  # fmt: skip
    rows = results.table.set_index("config.task.corners")
    assert (rows.loc[4, "sources/margin"] > -1e-9).all()
    assert rows.loc[0, "sources/mixing_angle"].min() > rows.loc[4, "sources/mixing_angle"].max()


def test_corners_are_points_of_the_set_and_need_room() -> None:
    plain, cornered = source_sets([3], 8), source_sets([3], 8, corners=4)
    assert cornered[0, :4].abs().tolist() == [[0.5, 0.5]] * 4
    assert len({tuple(point) for point in cornered[0, :4].tolist()}) == 4
    assert torch.equal(plain[0, 4:], cornered[0, 4:])
    with pytest.raises(ConfigError, match=r"task\.points=3 has no room for task\.corners=4"):
        make_member({"task": "sources"}, task__points=3, task__corners=4)
    with pytest.raises(ConfigError, match=r"task\.corners=1 is for two sources"):
        make_member({"task": "sources"}, task__modules=3, task__corners=1)
