import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from modulab.errors import ConfigError
from modulab.streams import fold_in, member_keys, uniforms
from modulab.tasks import supports

LEAST_P = 1e-4
"""Draws are fixed, so a test that passes keeps passing; a false law would give a p-value far below this."""


def law(support, modules=2, coordinates=1, width=0.3, cells=4, fraction=0.25, seed=0):
    return supports.SupportLaw(support, modules, coordinates, width, cells, fraction, seed)


def p_value(draws, cdf):
    return stats.kstest(draws.flatten().double().numpy(), cdf).pvalue


def uniform(low, high):
    return stats.uniform(low, high - low).cdf


def cell_of(inputs, cells):
    """Return each module's cell, by an independent route: double precision and the floor."""
    places = torch.floor((inputs.double() + 1.0) / 2.0 * cells).long()
    value = torch.zeros_like(places[..., 0])
    for coordinate in range(inputs.shape[-1]):
        value = value * cells + places[..., coordinate]
    return value


def combination_of(values, num_values):
    total = torch.zeros_like(values[..., 0])
    for module in range(values.shape[-1]):
        total = total * num_values + values[..., module]
    return total


@pytest.mark.parametrize("coordinates", [1, 2])
def test_full_support_is_uniform_and_independent(points, coordinates):
    inputs = supports.full(*points(20, 2000), 3, coordinates).flatten(2).flatten(0, 1)
    for column in inputs.unbind(1):
        assert p_value(column, uniform(-1, 1)) > LEAST_P
    correlations = torch.corrcoef(inputs.T) - torch.eye(inputs.shape[1])
    assert correlations.abs().max() < 5 / math.sqrt(len(inputs))


def test_full_support_of_more_modules_keeps_the_inputs_of_fewer(points):
    two, five = (supports.full(*points(2, 100), modules, 2) for modules in (2, 5))
    assert torch.equal(two, five[:, :, :2])


@pytest.mark.parametrize("width", [0.0, 0.1, 0.3, 0.499])
def test_band_keeps_modules_within_twice_its_width_and_covers_each_range(points, width):
    inputs = supports.band(*points(20, 2000), 3, 2, width)
    assert supports.spread(inputs).max() <= 2 * width + 1e-6
    assert supports.spread(inputs).max() < 1
    assert inputs.abs().max() <= 1
    assert inputs.amin() < -0.99
    assert inputs.amax() > 0.99


def test_band_marginal_follows_its_closed_form(points):
    # Clipping u + w v puts probability w/8 on each end; away from the ends the density is 1/2.
    width = 0.3
    inputs = supports.band(*points(20, 2000), 3, 1, width)[:, :, 0]
    number, atom = inputs.numel(), width / 8
    for end in (-1.0, 1.0):
        share = (inputs == end).double().mean().item()
        assert abs(share - atom) < 4 * math.sqrt(atom / number)
    interior = inputs[inputs.abs() < 1 - width]
    assert p_value(interior, uniform(-1 + width, 1 - width)) > LEAST_P
    assert abs(len(interior) / number - (1 - width)) < 4 / math.sqrt(number)


def test_band_complement_is_full_support_given_modules_one_apart(points):
    # For two modules the length of {x_2: |x_1 - x_2| >= 1} is |x_1|, so x_1 has density |x|.
    inputs = supports.band_complement(*points(10, 2001), 2, 1)
    assert supports.spread(inputs).min() >= 1
    for module in range(2):
        draws = inputs[:, :, module]
        assert p_value(draws, lambda x: 0.5 + x * abs(x) / 2) > LEAST_P


def test_band_complement_in_two_coordinates_needs_one_of_them_apart(points):
    inputs = supports.band_complement(*points(10, 2000), 2, 2)
    apart = (inputs[:, :, 0] - inputs[:, :, 1]).abs() >= 1
    assert apart.any(dim=2).all()
    # Each coordinate is apart with probability 1/4: either alone 3/16, both 1/16, one or both 7/16.
    share, number = apart.all(dim=2).double().mean().item(), apart[..., 0].numel()
    assert abs(share - 1 / 7) < 4 * math.sqrt(1 / 7 / number)


@pytest.mark.parametrize(("modules", "coordinates"), [(2, 1), (3, 1), (2, 2)])
def test_corner_shares_itself_evenly_over_the_other_orthants(points, modules, coordinates):
    inputs = supports.corner(*points(10, 2000), modules, coordinates).flatten(2)
    orthants = combination_of((inputs > 0).long(), 2)
    counts = torch.bincount(orthants.flatten(), minlength=2 ** (modules * coordinates))
    assert counts[-1] == 0
    assert stats.chisquare(counts[:-1].numpy()).pvalue > LEAST_P
    assert p_value(inputs.abs(), uniform(0, 1)) > LEAST_P


def test_corner_keeps_the_points_of_full_support_that_lie_in_it(points):
    full = supports.full(*points(3, 500), 2, 1)
    kept = (full <= 0).flatten(2).any(dim=2)
    assert torch.equal(supports.corner(*points(3, 500), 2, 1)[kept], full[kept])


def test_corner_complement_is_uniform_on_the_positive_orthant_however_many_modules(points):
    inputs = supports.corner_complement(*points(4, 500), 40, 1)
    assert inputs.min() > 0
    assert p_value(inputs, uniform(0, 1)) > LEAST_P


def test_cross_varies_one_module_at_a_time_each_as_often(points):
    inputs = supports.cross(*points(10, 2000), 3, 2)
    varying = (inputs != 0).all(dim=3)
    assert torch.equal(varying, (inputs != 0).any(dim=3))
    assert (varying.sum(dim=2) == 1).all()
    assert stats.chisquare(varying.sum(dim=(0, 1)).numpy()).pvalue > LEAST_P
    assert p_value(inputs[varying], uniform(-1, 1)) > LEAST_P


def test_withheld_region_of_cross_has_every_module_away_from_zero(points):
    inputs = supports.region_inputs(*points(10, 2000), "withheld", law("cross"))
    assert (inputs != 0).all()


@pytest.mark.parametrize(("modules", "coordinates", "cells"), [(2, 1, 4), (3, 1, 3), (2, 2, 2), (2, 1, 7)])
def test_cells_train_and_withheld_regions_divide_full_support(points, modules, coordinates, cells):
    settings_ = law("cells", modules, coordinates, cells=cells)
    num_values = cells**coordinates
    withheld = supports.withheld_combinations(num_values, modules, 0.25, 0)
    for region, allowed in (("train", ~withheld), ("withheld", withheld)):
        inputs = supports.region_inputs(*points(10, 2000), region, settings_)
        values = cell_of(inputs, cells)
        counts = torch.bincount(combination_of(values, num_values).flatten(), minlength=num_values**modules)
        assert (counts[~allowed] == 0).all()
        assert stats.chisquare(counts[allowed].numpy()).pvalue > LEAST_P
        offsets = torch.remainder((inputs.double() + 1) / 2 * cells, 1.0)
        assert p_value(offsets, uniform(0, 1)) > LEAST_P
        if region == "train":
            for module in range(modules):
                assert len(values[:, :, module].unique()) == num_values


def test_cells_inputs_stay_inside_their_cell_where_rounding_would_leave_it():
    # In single precision 999 + u rounds to 1000, the next cell, for one u in 30,000 or so.
    keys = torch.tensor([[0, 0]], dtype=torch.int32)
    counters = torch.arange(2**18, dtype=torch.int32).unsqueeze(0)
    withheld = supports.withheld_combinations(1000, 2, 0.25, 0)
    inputs = supports.cells_region(keys, counters, law("cells", cells=1000), withheld)
    places = torch.bucketize(inputs[..., 0], supports.cell_edges(1000)[1:-1])
    assert withheld[combination_of(places, 1000)].all()


def test_rejection_agrees_with_drawing_point_by_point(points):
    def propose(source):
        return supports.independent(source, 2, 1)

    keys, counters = points(2, 15)
    draws = supports.rejection(keys, counters, propose, lambda x, _: (x.sum(dim=2) > 1.0)[:, 0, 0])
    for member, point in itertools.product(range(2), range(15)):
        key, counter = keys[member : member + 1], counters[member : member + 1, point : point + 1]
        attempt = 0
        while True:
            attempt_key = fold_in(key, supports._ATTEMPT + attempt) if attempt else key
            expected = [uniforms(fold_in(attempt_key, word), counter).item() * 2 - 1 for word in range(2)]
            if sum(expected) > 1.0:
                break
            attempt += 1
        assert draws[member, point, :, 0].tolist() == expected


@given(
    num_values=st.integers(2, 6),
    modules=st.integers(2, 4),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=40)
def test_withheld_combinations_hide_the_stated_share_but_no_single_value(num_values, modules, share, seed):
    total = num_values**modules
    count = 1 + round(share * (total - num_values - 1))
    withheld = supports.withheld_combinations(num_values, modules, count / total, seed)
    assert withheld.sum() == count
    seen = [set() for _ in range(modules)]
    for combination, hidden in zip(
        itertools.product(range(num_values), repeat=modules), withheld.tolist(), strict=True
    ):
        if not hidden:
            for module, value in enumerate(combination):
                seen[module].add(value)
    assert seen == [set(range(num_values))] * modules


def test_withheld_combinations_depend_on_the_seed():
    tables = {tuple(supports.withheld_combinations(4, 2, 0.25, seed).tolist()) for seed in range(20)}
    assert len(tables) > 15


def test_withheld_combinations_withhold_each_combination_as_often_over_seeds():
    counts = sum(supports.withheld_combinations(3, 2, 2 / 9, seed).long() for seed in range(150))
    assert stats.chisquare(counts.numpy()).pvalue > LEAST_P


@pytest.mark.parametrize(
    ("num_values", "modules", "fraction", "words"),
    [
        (2, 2, 0.1, ["task.withheld_fraction=0.1", "withholds nothing", "from 0.25 to 0.5"]),
        (2, 2, 0.9, ["task.withheld_fraction=0.9", "still be seen", "from 0.25 to 0.5"]),
        (4, 1, 0.5, ["task.modules=1", "2 or more"]),
        (10, 7, 0.1, ["task.modules=7", "10^7", "task.modules to 6 or less"]),
        (2, 10**9, 0.1, ["task.modules=1000000000", "task.modules to 20 or less"]),
    ],
)
def test_withheld_combinations_refuse_what_cannot_be_and_say_how_to_mend_it(
    num_values, modules, fraction, words
):
    with pytest.raises(ConfigError) as error:
        supports.withheld_combinations(num_values, modules, fraction, 0)
    for word in words:
        assert word in str(error.value)


def test_the_shares_that_a_message_offers_are_accepted():
    for num_values, modules in ((2, 2), (7, 3), (10, 6)):
        total = num_values**modules
        for count in (1, total - num_values):
            share = float(f"{count / total:.7g}")
            assert supports.check_withholding(num_values, modules, share, "cells") == count


def test_combinations_follow_their_weights(points):
    weights = torch.tensor([0.1, 0.0, 0.3, 0.0, 0.2, 0.0, 0.0, 0.0, 0.4], dtype=torch.float64)
    values = supports.combinations(*points(10, 2000), weights, 3, 2)
    counts = torch.bincount(combination_of(values, 3).flatten(), minlength=9)
    assert (counts[weights == 0] == 0).all()
    expected = weights[weights > 0] * counts.sum()
    assert stats.chisquare(counts[weights > 0].numpy(), expected.numpy()).pvalue > LEAST_P


def test_combination_weights_are_products_in_the_order_of_itertools():
    values = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [math.prod(row) for row in itertools.product(*values.tolist())]
    torch.testing.assert_close(
        supports.combination_weights(values), torch.tensor(expected, dtype=torch.float64)
    )


def test_full_support_has_no_withheld_region(points):
    with pytest.raises(ConfigError, match=r"task\.support=full withholds nothing"):
        supports.region_inputs(*points(1, 1), "withheld", law("full"))


@pytest.mark.parametrize("support", ["full", "band", "corner", "cross", "cells"])
def test_a_support_covers_its_training_points_and_none_that_are_withheld(support):
    chosen = law(support, coordinates=2, width=0.2, cells=3, fraction=0.3, seed=1)
    keys, counters = member_keys([0, 1]), torch.arange(500, dtype=torch.int32).expand(2, -1)

    def covered(region):
        return supports.covers(supports.region_inputs(keys, counters, region, chosen), chosen)

    assert covered("train").all()
    if support != "full":
        assert not covered("withheld").any()
    # Of inputs in [-1, 1], two are within 2w of one another with probability 2w - w^2, in each coordinate.
    expected = {"full": 1, "band": 0.36**2, "corner": 1 - 2**-4, "cross": 0, "cells": 1 - 24 / 81}
    assert covered("full").double().mean().item() == pytest.approx(expected[support], abs=0.06)
