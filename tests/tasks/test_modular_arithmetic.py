from __future__ import annotations

import pytest
import torch
from scipy import stats

from modulab.errors import ConfigError
from modulab.tasks import supports

LEAST_P = 1e-4
REGIONS = [
    (support, region)
    for support in ("full", "pairs")
    for region in ("train", "full", "withheld")
    if (support, region) != ("full", "withheld")
]


def numbers_of(samples, modulus):
    """Return the numbers (member, batch, module, 2) that one-hot inputs stand for."""
    one_hot = samples.inputs.unflatten(2, (-1, 2, modulus))
    assert ((one_hot == 0) | (one_hot == 1)).all()
    assert (one_hot.sum(dim=4) == 1).all()
    return one_hot.argmax(dim=4)


@pytest.mark.parametrize(("support", "region"), REGIONS)
@pytest.mark.parametrize(("modules", "modulus"), [(1, 2), (2, 7), (3, 13)])
def test_targets_are_sums_modulo_p_in_every_region(make_task, points, support, region, modules, modulus):
    task = make_task(
        "modular_arithmetic", modules=modules, modulus=modulus, support=support, withheld_fraction=0.3
    )
    assert task.withholds == (support == "pairs")
    samples = task.draw(*points(3, 200), region, "train")
    assert samples.inputs.shape == (3, 200, task.in_features) == (3, 200, modules * 2 * modulus)
    assert samples.targets.shape == (3, 200, task.num_targets) == (3, 200, modules)
    assert task.input_shape == (2, modulus)
    assert task.out_features == modules * modulus
    numbers = numbers_of(samples, modulus)
    for members in numbers.flatten(0, 1)[:20].tolist():
        assert all(0 <= number < modulus for pair in members for number in pair)
    sums = [[[(a + b) % modulus for a, b in point] for point in member] for member in numbers.tolist()]
    assert samples.targets.tolist() == sums


@pytest.mark.parametrize(("support", "region"), REGIONS)
def test_draws_depend_on_nothing_but_each_points_key_and_counter(make_task, points, support, region):
    task = make_task("modular_arithmetic", modules=3, support=support)
    keys, counters = points(5, 31)
    samples = task.draw(keys, counters, region, "train")
    order = torch.randperm(31, generator=torch.Generator().manual_seed(0))
    for members in ([3, 0, 4], [2]):
        again = task.draw(keys[members], counters[members][:, order].contiguous(), region, "test")
        assert torch.equal(again.inputs, samples.inputs[members][:, order])
        assert torch.equal(again.targets, samples.targets[members][:, order])
    for member in range(5):
        alone = task.draw(keys[member : member + 1], counters[:1, 5:6], region, "train")
        assert torch.equal(alone.inputs[0, 0], samples.inputs[member, 5])


@pytest.mark.parametrize(("support", "region"), REGIONS)
def test_pairs_of_a_region_are_equally_likely_and_those_of_modules_independent(
    make_task, points, support, region
):
    task = make_task("modular_arithmetic", modules=2, modulus=5, support=support, withheld_seed=3)
    table = supports.withheld_combinations(5, 2, 0.25, 3)
    assert int(table.sum()) == 6
    allowed = torch.ones(25, dtype=torch.bool)
    if support == "pairs" and region != "full":
        allowed = table if region == "withheld" else ~table
    numbers = numbers_of(task.draw(*points(10, 2000), region, "train"), 5).flatten(0, 1)
    pairs = numbers[:, :, 0] * 5 + numbers[:, :, 1]
    for module in range(2):
        counts = torch.bincount(pairs[:, module], minlength=25)
        assert not counts[~allowed].any()
        assert stats.chisquare(counts[allowed].numpy()).pvalue > LEAST_P
        if region == "train":
            seen = numbers[:, module]
            assert all(set(seen[:, place].tolist()) == set(range(5)) for place in range(2))
    # Together as well: an error in one module cannot be told from the numbers of the other.
    places = torch.nonzero(allowed)[:, 0]
    joint = torch.bincount(pairs[:, 0] * 25 + pairs[:, 1], minlength=625).view(25, 25)[places][:, places]
    assert stats.chisquare(joint.flatten().numpy()).pvalue > LEAST_P


def test_seeds_withhold_different_pairs_and_members_the_same(make_task, points):
    def withheld(seed):
        task = make_task("modular_arithmetic", support="pairs", withheld_seed=seed)
        numbers = numbers_of(task.draw(*points(4, 500), "withheld", "train"), 7)
        return [{tuple(pair) for pair in member.flatten(0, 1).tolist()} for member in numbers]

    first, second = withheld(0), withheld(1)
    assert all(member == first[0] for member in first)
    assert len(first[0]) == 12  # a quarter of 49
    assert first[0] != second[0]


def test_change_raises_the_first_modules_sum_by_one(make_task, points):
    task = make_task("modular_arithmetic", modules=3)
    samples = task.draw(*points(3, 40), "train", "train")
    changed = task.changed(samples)
    assert torch.equal(changed.inputs, samples.inputs)
    assert torch.equal(changed.targets[:, :, 1:], samples.targets[:, :, 1:])
    first = numbers_of(samples, 7)[:, :, 0].sum(dim=2)
    assert torch.equal(changed.targets[:, :, 0], ((first + 1) % 7).float())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modulus": 1}, ["task.modulus=1"]),
        ({"modulus": 2000}, ["task.modulus=2000", "1024"]),
        ({"support": "pairs", "withheld_fraction": 0.9}, ["task.withheld_fraction=0.9", "49", "0.857"]),
        ({"support": "pairs", "withheld_fraction": 0.005}, ["task.withheld_fraction=0.005", "nothing"]),
        ({"support": "labels"}, ["task.support"]),
    ],
)
def test_impossible_settings_are_refused_with_a_way_out(make_task, changes, words):
    with pytest.raises(ConfigError) as refused:
        make_task("modular_arithmetic", **changes)
    assert all(word in str(refused.value) for word in words), refused.value


def test_what_cannot_be_drawn_is_refused(make_task, points):
    with pytest.raises(ConfigError, match=r"task\.support=full withholds nothing"):
        make_task("modular_arithmetic").draw(*points(1, 2), "withheld", "train")
    with pytest.raises(ConfigError, match=r"probes\.ranges"):
        make_task("modular_arithmetic").draw(*points(1, 2), "full", "train", torch.ones(2))
    assert not make_task("modular_arithmetic").ranges


def test_sizes_are_structural_and_the_support_is_not(make_task):
    structural = {
        key
        for key, field in type(make_task("modular_arithmetic")).model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("structural")
    }
    assert structural == {"modules", "code", "modulus"}
