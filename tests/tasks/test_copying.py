from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.nn import functional

from modulab.errors import ConfigError
from modulab.partition import Partition
from modulab.tasks.copying import TokenCrossEntropyLoss

LEAST_P = 1e-4
PARTITION = Partition.of_equal_shares(2, 1, 12)
"""Two modules of three tokens of four symbols."""
LOSS = TokenCrossEntropyLoss(4)


@pytest.mark.parametrize("region", ["train", "full"])
@pytest.mark.parametrize(("modules", "length", "symbols"), [(1, 1, 2), (2, 4, 4), (3, 2, 5)])
def test_targets_name_the_symbols_that_inputs_show(make_task, points, region, modules, length, symbols):
    task = make_task("copying", modules=modules, length=length, symbols=symbols)
    samples = task.draw(*points(3, 50), region, "train")
    assert samples.inputs.shape == (3, 50, task.in_features)
    assert samples.targets.shape == (3, 50, task.num_targets) == (3, 50, modules * length)
    assert task.input_shape == (length, symbols)
    assert task.out_features == task.in_features == modules * length * symbols
    one_hot = samples.inputs.unflatten(2, (modules * length, symbols))
    assert (one_hot.sum(dim=3) == 1).all()
    assert torch.equal(functional.one_hot(samples.targets.long(), symbols).float(), one_hot)
    loss = task.loss
    # Inputs, as logits, name each symbol.
    assert not loss.errors(samples.inputs, samples.targets, task.partition).any()
    assert not task.withholds
    assert not task.ranges


def test_draws_depend_on_nothing_but_each_points_key_and_counter(make_task, points):
    task = make_task("copying", modules=3)
    keys, counters = points(5, 31)
    samples = task.draw(keys, counters, "train", "train")
    order = torch.randperm(31, generator=torch.Generator().manual_seed(0))
    for members in ([3, 0, 4], [2]):
        again = task.draw(keys[members], counters[members][:, order].contiguous(), "full", "test")
        assert torch.equal(again.inputs, samples.inputs[members][:, order])
        assert torch.equal(again.targets, samples.targets[members][:, order])
    for member in range(5):
        alone = task.draw(keys[member : member + 1], counters[:1, 5:6], "train", "train")
        assert torch.equal(alone.inputs[0, 0], samples.inputs[member, 5])


def test_symbols_are_equally_likely_and_independent(make_task, points):
    task = make_task("copying", modules=2, length=2, symbols=3)
    targets = task.draw(*points(10, 2000), "train", "train").targets.flatten(0, 1).long()
    joint = torch.bincount(targets @ torch.tensor([27, 9, 3, 1]), minlength=81)
    assert stats.chisquare(joint.numpy()).pvalue > LEAST_P
    inputs = make_task("copying", modules=3).draw(*points(5, 100), "train", "train").inputs
    assert len(inputs.flatten(0, 1).unique(dim=0)) == 500


def test_change_names_each_of_the_first_modules_symbols_as_the_next(make_task, points):
    task = make_task("copying", modules=3, length=2, symbols=4)
    samples = task.draw(*points(3, 40), "train", "train")
    changed = task.changed(samples)
    assert torch.equal(changed.inputs, samples.inputs)
    assert torch.equal(changed.targets[:, :, 2:], samples.targets[:, :, 2:])
    following = {0.0: 1.0, 1.0: 2.0, 2.0: 3.0, 3.0: 0.0}
    before, after = (each.targets[:, :, :2].flatten().tolist() for each in (samples, changed))
    assert after == [following[symbol] for symbol in before]


def outputs_and_targets():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 50, 24, generator=generator)
    return outputs, torch.randint(0, 4, (3, 50, 6), generator=generator).float()


def test_loss_and_errors_are_those_of_torch_by_token():
    outputs, targets = outputs_and_targets()
    assert LOSS.num_targets(PARTITION) == 6
    losses, errors = LOSS.by_module(outputs, targets, PARTITION), LOSS.errors(outputs, targets, PARTITION)
    totals = LOSS.total(outputs, targets, PARTITION)
    assert losses.shape == errors.shape == (3, 2)
    for member in range(3):
        for module in range(2):
            logits = outputs[member, :, module * 12 : module * 12 + 12].reshape(-1, 4)
            labels = targets[member, :, module * 3 : module * 3 + 3].reshape(-1).long()
            torch.testing.assert_close(losses[member, module], functional.cross_entropy(logits, labels))
            wrong = (logits.argmax(dim=1) != labels).float().mean()
            torch.testing.assert_close(errors[member, module], wrong)
    torch.testing.assert_close(totals, losses.mean(dim=1))


def test_a_constant_answer_errs_as_the_best_symbol_of_each_token_does():
    _, targets = outputs_and_targets()
    found = LOSS.constant_errors(targets, PARTITION)
    for member in range(3):
        for module in range(2):
            errors = [
                1 - torch.bincount(targets[member, :, token].long()).max().item() / 50
                for token in range(module * 3, module * 3 + 3)
            ]
            assert found[member, module].item() == pytest.approx(sum(errors) / 3)


def test_one_wrong_token_is_what_errors_resolve():
    outputs = functional.one_hot(torch.zeros(1, 50, 6, dtype=torch.long), 4).float().flatten(2)
    targets = torch.zeros(1, 50, 6)
    targets[0, 7, 4] = 2
    errors = LOSS.errors(outputs, targets, PARTITION)
    assert errors[0, 0] == 0
    assert errors.mean().item() == pytest.approx(LOSS.resolution(50, PARTITION))


def test_what_cannot_be_drawn_is_refused(make_task, points):
    with pytest.raises(ConfigError, match=r"task\.name=copying withholds nothing"):
        make_task("copying").draw(*points(1, 2), "withheld", "train")
    with pytest.raises(ConfigError, match=r"probes\.ranges"):
        make_task("copying").draw(*points(1, 2), "full", "train", torch.ones(2))
    for changes, word in (({"symbols": 1}, "task.symbols=1"), ({"length": 0}, "task.length=0")):
        with pytest.raises(ConfigError, match=word):
            make_task("copying", **changes)


def test_sizes_are_structural(make_task):
    structural = {
        key
        for key, field in type(make_task("copying")).model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("structural")
    }
    assert structural == {"modules", "code", "length", "symbols"}
