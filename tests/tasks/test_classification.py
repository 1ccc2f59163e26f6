import math

import pytest
import torch
from scipy import stats

from modulab.errors import ConfigError
from modulab.tasks import supports

LEAST_P = 1e-4
RING_SHARE = 1 - math.pi * 0.64 / 4


def by_module(inputs):
    return inputs.unflatten(2, (-1, 2))


def true_labels(inputs, modules):
    """Return xor for even modules and ring for odd ones, in double precision."""
    points = by_module(inputs).double()
    labels = [
        points[:, :, m].square().sum(dim=2) > 0.64 if m % 2 else points[:, :, m].prod(dim=2) > 0
        for m in range(modules)
    ]
    return torch.stack(labels, dim=2)


@pytest.mark.parametrize("support", ["full", "band", "corner", "cross", "cells", "labels"])
@pytest.mark.parametrize("region", ["train", "full", "withheld"])
def test_labels_are_xor_and_ring_in_every_region(make_task, points, support, region):
    task = make_task("classification", modules=3, support=support)
    if region == "withheld" and not task.withholds:
        return
    samples = task.draw(*points(3, 500), region, "train")
    exact = true_labels(samples.inputs, 3)
    # A point within rounding of the ring may fall on either side.
    sure = ((by_module(samples.inputs).double().square().sum(dim=3) - 0.64).abs() > 1e-6) | (
        torch.arange(3) % 2 == 0
    )
    assert torch.equal(samples.targets.bool()[sure], exact[sure])


@pytest.mark.parametrize("functions", [["xor", "ring"], ["ring", "xor"]])
def test_change_swaps_the_first_modules_label_for_the_other(make_task, points, functions):
    task = make_task("classification", functions=functions)
    samples = task.draw(*points(2, 500), "full", "test")
    inside_out = make_task("classification", functions=functions[::-1]).draw(*points(2, 500), "full", "test")
    changed = task.changed(samples)
    assert torch.equal(changed.targets[:, :, 0], inside_out.targets[:, :, 0])
    assert torch.equal(changed.targets[:, :, 1], samples.targets[:, :, 1])


def test_classes_have_their_shares_of_the_square(make_task, points):
    targets = make_task("classification").draw(*points(20, 2000), "full", "train").targets
    for module, share in enumerate((0.5, RING_SHARE)):
        assert abs(targets[:, :, module].mean().item() - share) < 4 * 0.5 / math.sqrt(40000)


@pytest.mark.parametrize("modules", [2, 4])
def test_labels_support_is_full_support_given_the_joint_label(make_task, points, modules):
    task = make_task("classification", modules=modules, support="labels")
    withheld = supports.withheld_combinations(2, modules, 0.25, 0)
    shares = torch.tensor([[1 - RING_SHARE, RING_SHARE] if m % 2 else [0.5, 0.5] for m in range(modules)])
    weights = supports.combination_weights(shares.double())
    powers = 2 ** torch.arange(modules - 1, -1, -1)
    for region, allowed in (("train", ~withheld), ("withheld", withheld)):
        samples = task.draw(*points(10, 2000), region, "train")
        joint = (samples.targets.long() * powers).sum(dim=2).flatten()
        counts = torch.bincount(joint, minlength=2**modules)
        assert (counts[~allowed] == 0).all()
        if allowed.sum() > 1:
            expected = weights[allowed] / weights[allowed].sum() * counts.sum()
            assert stats.chisquare(counts[allowed].numpy(), expected.numpy()).pvalue > LEAST_P
        if region == "train":
            assert (samples.targets.flatten(0, 1).unique(dim=0).amin(dim=0) == 0).all()
            assert (samples.targets.flatten(0, 1).unique(dim=0).amax(dim=0) == 1).all()


def test_points_given_their_label_are_uniform_within_its_area(make_task, points):
    samples = make_task("classification", support="labels").draw(*points(10, 2000), "train", "train")
    inputs = by_module(samples.inputs)
    # Inside the ring |x|^2 / 0.64 is uniform; by symmetry each xor coordinate stays uniform on [-1, 1].
    inside = inputs[:, :, 1][samples.targets[:, :, 1] == 0].square().sum(dim=1) / 0.64
    assert stats.kstest(inside.numpy(), "uniform").pvalue > LEAST_P
    for label in (0, 1):
        first = inputs[:, :, 0][samples.targets[:, :, 0] == label]
        for column in first.unbind(1):
            assert stats.kstest(column.numpy(), stats.uniform(-1, 2).cdf).pvalue > LEAST_P
    outside = inputs[:, :, 1][samples.targets[:, :, 1] == 1]
    # E[x^2; outside] = E[x^2] - E[x^2; inside], with E[x^2; inside] = (pi r^4 / 4) / 4.
    moment = (1 / 3 - math.pi * 0.64**2 / 16) / RING_SHARE
    assert abs(outside.square().mean().item() - moment) < 0.01


def test_cells_cut_both_coordinates(make_task, points):
    task = make_task("classification", support="cells", cells=2)
    withheld = supports.withheld_combinations(4, 2, 0.25, 0)
    inputs = by_module(task.draw(*points(5, 2000), "train", "train").inputs)
    quadrant = (inputs > 0).long() @ torch.tensor([2, 1])
    assert not withheld[quadrant[..., 0] * 4 + quadrant[..., 1]].any()
    assert len((quadrant[..., 0] * 4 + quadrant[..., 1]).unique()) == (~withheld).sum()


def test_scales_widen_each_module_and_labels_follow(make_task, points):
    task = make_task("classification")
    plain = task.draw(*points(2, 500), "full", "test")
    wide = task.draw(*points(2, 500), "full", "test", torch.tensor([3.0, 10.0]))
    assert torch.equal(wide.inputs, plain.inputs * torch.tensor([3.0, 3.0, 10.0, 10.0]))
    assert torch.equal(wide.targets[:, :, 0], plain.targets[:, :, 0])
    assert wide.targets[:, :, 1].mean() > 0.99


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules": 1, "support": "labels"}, ["task.modules=1", "labels", "2 or more"]),
        ({"modules": 1, "support": "corner"}, ["task.modules=1", "task.support=corner"]),
        ({"support": "labels", "withheld_fraction": 0.05}, ["task.withheld_fraction=0.05", "nothing"]),
        ({"support": "labels", "withheld_fraction": 0.8}, ["task.withheld_fraction=0.8", "0.5"]),
        ({"support": "labels", "modules": 21}, ["task.modules=21", "20 or less"]),
        ({"support": "cells", "cells": 4, "modules": 6}, ["task.modules=6", "16^6", "5 or less"]),
        ({"functions": ["rings"]}, ["task.functions.0", "'ring'"]),
        ({"support": "grid"}, ["task.support='grid'", "'labels'"]),
    ],
)
def test_impossible_settings_are_refused_by_name(make_task, changes, words):
    with pytest.raises(ConfigError) as error:
        make_task("classification", **changes)
    for word in words:
        assert word in str(error.value)
