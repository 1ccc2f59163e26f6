from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from modulab.errors import ConfigError
from modulab.tasks import supports
from modulab.tasks.base import Task

Make = Callable[..., Task]
Points = Callable[..., tuple[Tensor, Tensor]]
LEAST_P = 1e-4
REGIONS = [
    ("full", "train"),
    ("full", "full"),
    ("labels", "train"),
    ("labels", "full"),
    ("labels", "withheld"),
]


def parities(inputs: Tensor, modules: int) -> Tensor:
    """Return the parity of each module's bits, by inverting a memory at each 1."""
    memory = torch.zeros(*inputs.shape[:2], modules, dtype=torch.bool)
    for bit in inputs.unflatten(2, (modules, -1)).unbind(3):
        memory = memory ^ (bit == 1)
    return memory.float()


@pytest.mark.parametrize(("support", "region"), REGIONS)
@pytest.mark.parametrize("bits", [1, 2, 7])
def test_targets_are_the_parities_of_each_modules_own_bits(
    make_task: Make, points: Points, support: str, region: str, bits: int
) -> None:
    task = make_task("parity", modules=3, bits=bits, support=support)
    samples = task.draw(*points(3, 200), region, "train")
    assert samples.inputs.shape == (3, 200, 3 * bits)
    assert set(samples.inputs.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(samples.targets, parities(samples.inputs, 3))
    assert task.input_shape == (bits, 1)


@pytest.mark.parametrize(("support", "region"), REGIONS)
def test_draws_depend_on_nothing_but_each_points_key_and_counter(
    make_task: Make, points: Points, support: str, region: str
) -> None:
    task = make_task("parity", modules=4, bits=5, support=support)
    keys, counters = points(5, 31)
    samples = task.draw(keys, counters, region, "train")
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(31, generator=generator)
    for members, columns in ((torch.tensor([4, 0, 2]), order), (torch.tensor([3]), order[:1])):
        again = task.draw(keys[members], counters[members][:, columns].contiguous(), region, "test")
        assert torch.equal(again.inputs, samples.inputs[members][:, columns])
        assert torch.equal(again.targets, samples.targets[members][:, columns])


@pytest.mark.parametrize("support", ["full", "labels"])
def test_every_combination_of_sequences_is_as_frequent_given_the_joint_parity(
    make_task: Make, points: Points, support: str
) -> None:
    task = make_task("parity", modules=2, bits=3, support=support)
    withheld = supports.withheld_combinations(2, 2, 0.25, 0)
    place = 2 ** torch.arange(5, -1, -1)
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
    joint = (parities(every[None], 2)[0].long() * torch.tensor([2, 1])).sum(dim=1)
    for region in ("train", "withheld", "full"):
        if region == "withheld" and support == "full":
            continue
        inputs = task.draw(*points(10, 2000), region, "train").inputs.long()
        counts = torch.bincount((inputs * place).sum(dim=2).flatten(), minlength=64)
        everywhere = support == "full" or region == "full"
        allowed = torch.ones(64).bool() if everywhere else withheld[joint] == (region == "withheld")
        assert (counts[~allowed] == 0).all()
        assert stats.chisquare(counts[allowed].numpy()).pvalue > LEAST_P


def test_no_proper_part_of_a_sequence_tells_its_parity(make_task: Make, points: Points) -> None:
    samples = make_task("parity", modules=1, bits=4).draw(*points(10, 2000), "full", "train")
    for left_out in range(4):
        others = [step for step in range(4) if step != left_out]
        part = (samples.inputs[:, :, others].long() * torch.tensor([4, 2, 1])).sum(dim=2)
        odd = torch.bincount(part[samples.targets[:, :, 0] == 1], minlength=8)
        assert (odd / torch.bincount(part.flatten(), minlength=8) - 0.5).abs().max() < 0.05


def test_change_inverts_the_parity_of_the_first_module_alone(make_task: Make, points: Points) -> None:
    task = make_task("parity", modules=3)
    samples = task.draw(*points(2, 100), "full", "train")
    changed = task.changed(samples)
    assert changed is not None
    assert torch.equal(changed.inputs, samples.inputs)
    assert torch.equal(changed.targets[:, :, 0], 1 - samples.targets[:, :, 0])
    assert torch.equal(changed.targets[:, :, 1:], samples.targets[:, :, 1:])


def test_bits_have_no_range_to_widen_and_full_support_withholds_nothing(
    make_task: Make, points: Points
) -> None:
    task = make_task("parity")
    assert not task.ranges
    assert not task.withholds
    with pytest.raises(ConfigError, match="range"):
        task.draw(*points(1, 1), "full", "test", torch.ones(2))
    with pytest.raises(ConfigError, match="withholds nothing"):
        task.draw(*points(1, 1), "withheld", "test")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bits": 0}, ["task.bits=0", "length of each module's sequence"]),
        ({"modules": 1, "support": "labels"}, ["task.modules=1", "2 or more"]),
        ({"support": "labels", "withheld_fraction": 0.05}, ["task.withheld_fraction=0.05", "nothing"]),
        ({"support": "labels", "withheld_fraction": 0.8}, ["task.withheld_fraction=0.8", "0.5"]),
        ({"support": "band"}, ["task.support='band'", "'full' or 'labels'"]),
    ],
)
def test_impossible_settings_are_refused_by_name(
    make_task: Make, changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        make_task("parity", **changes)
    for word in words:
        assert word in str(error.value)
