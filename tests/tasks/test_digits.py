import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from modulab.errors import ConfigError
from modulab.tasks import supports
from modulab.tasks.digits import _joint_label_weights, load_images

CPU = torch.device("cpu")
LEAST_P = 1e-4


def rows(images):
    return {tuple(row) for row in images.tolist()}


def test_train_and_test_images_share_none_and_make_up_the_set():
    bundle = load_digits()
    train, test = load_images("train", CPU), load_images("test", CPU)
    everything = rows(torch.tensor(bundle.data).float() / 16)
    assert len(everything) == len(bundle.data)
    assert rows(train.pixels) | rows(test.pixels) == everything
    assert not rows(train.pixels) & rows(test.pixels)
    assert len(train.digits) + len(test.digits) == len(bundle.data)


def test_each_digit_has_a_fifth_of_its_images_in_test():
    counts = torch.bincount(torch.tensor(load_digits().target))
    test, train = load_images("test", CPU).counts, load_images("train", CPU).counts
    assert torch.equal(train + test, counts)
    assert ((test / counts - 0.2).abs() <= 0.5 / counts).all()


def test_images_keep_their_digits():
    bundle = load_digits()
    digit_of = dict(zip((tuple(row / 16) for row in bundle.data), bundle.target.tolist(), strict=True))
    for split in ("train", "test"):
        images = load_images(split, CPU)
        assert [digit_of[tuple(row)] for row in images.pixels.tolist()] == images.digits.tolist()
        for digit, (start, count) in enumerate(
            zip(images.starts.tolist(), images.counts.tolist(), strict=True)
        ):
            assert (images.digits[start : start + count] == digit).all()


@pytest.mark.parametrize("support", ["full", "labels"])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("region", ["train", "full", "withheld"])
def test_draws_show_only_the_splits_images_with_their_digits(make_task, points, support, split, region):
    task = make_task("digits", support=support)
    if region == "withheld" and not task.withholds:
        return
    images = load_images(split, CPU)
    digit_of = dict(zip(map(tuple, images.pixels.tolist()), images.digits.tolist(), strict=True))
    samples = task.draw(*points(2, 100), region, split)
    for row, label in zip(
        samples.inputs.view(-1, 64).tolist(), samples.targets.flatten().tolist(), strict=True
    ):
        assert digit_of[tuple(row)] == label


def test_full_support_shows_every_image_as_often(make_task, points):
    images = load_images("test", CPU)
    index = {tuple(row): i for i, row in enumerate(images.pixels.tolist())}
    inputs = make_task("digits").draw(*points(3, 3000), "full", "test").inputs.view(-1, 64)
    counts = torch.bincount(torch.tensor([index[tuple(row)] for row in inputs.tolist()]))
    assert stats.chisquare(counts.numpy()).pvalue > LEAST_P


def test_labels_support_is_full_support_given_the_joint_label(make_task, points):
    task = make_task("digits", support="labels")
    withheld = supports.withheld_combinations(10, 2, 0.25, 0)
    counts = load_images("train", CPU).counts.double()
    weights = torch.outer(counts, counts).flatten()
    for region, allowed in (("train", ~withheld), ("withheld", withheld)):
        targets = task.draw(*points(10, 2000), region, "train").targets.long()
        seen = torch.bincount((targets @ torch.tensor([10, 1])).flatten(), minlength=100)
        assert (seen[~allowed] == 0).all()
        expected = weights[allowed] / weights[allowed].sum() * seen.sum()
        assert stats.chisquare(seen[allowed].numpy(), expected.numpy()).pvalue > LEAST_P
        if region == "train":
            assert all(len(targets[:, :, module].unique()) == 10 for module in range(2))


def test_joint_labels_weigh_as_many_pairs_of_images_as_show_them():
    counts = load_images("train", CPU).counts
    withheld = supports.withheld_combinations(10, 2, 0.25, 0)
    weights = _joint_label_weights(2, 0.25, 0, False, counts)
    assert torch.equal(weights.long(), torch.outer(counts, counts).flatten() * ~withheld)


def test_six_digits_can_withhold_joint_labels(make_task, points):
    task = make_task("digits", modules=6, support="labels")
    withheld = supports.withheld_combinations(10, 6, 0.25, 0)
    powers = 10 ** torch.arange(5, -1, -1)
    for region in ("train", "withheld"):
        targets = task.draw(*points(2, 200), region, "test").targets.long()
        assert (withheld[(targets * powers).sum(dim=2)] == (region == "withheld")).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules": 7, "support": "labels"}, ["task.modules=7", "6 or less"]),
        ({"modules": 1, "support": "labels"}, ["task.modules=1", "2 or more"]),
        ({"support": "labels", "withheld_fraction": 0.95}, ["task.withheld_fraction=0.95", "0.9"]),
        ({"support": "labels", "withheld_fraction": 0.001}, ["task.withheld_fraction=0.001", "nothing"]),
        ({"support": "band"}, ["task.support='band'", "'full' or 'labels'"]),
        ({"band_width": 0.3}, ["task.band_width: there is no such key"]),
    ],
)
def test_impossible_settings_are_refused_by_name(make_task, changes, words):
    with pytest.raises(ConfigError) as error:
        make_task("digits", **changes)
    for word in words:
        assert word in str(error.value)


def test_images_have_no_range_to_widen(make_task, points):
    task = make_task("digits")
    assert not task.ranges
    with pytest.raises(ConfigError, match="range"):
        task.draw(*points(1, 1), "full", "test", torch.ones(2))


def test_change_names_each_digit_of_the_first_module_by_the_next(make_task, points):
    task = make_task("digits")
    samples = task.draw(*points(2, 300), "full", "train")
    changed = task.changed(samples)
    names = {
        (int(old), int(new))
        for old, new in zip(
            samples.targets[:, :, 0].flatten(), changed.targets[:, :, 0].flatten(), strict=True
        )
    }
    assert names == {(digit, digit + 1) for digit in range(9)} | {(9, 0)}
    assert torch.equal(changed.targets[:, :, 1], samples.targets[:, :, 1])
