import math

import pytest
import torch
from scipy import stats

from modulab.errors import ConfigError
from modulab.partition import SHARED

LEAST_P = 1e-4
PUBLISHED = {"side": 32, "width": 1.5, "corner": 12.0}


def test_images_are_gaussians_at_the_position(make_task, points):
    task = make_task("bump_position", side=5, width=0.8)
    samples = task.draw(*points(2, 4), "full", "test")
    for image, (x, y) in zip(
        samples.inputs.flatten(0, 1), samples.targets.flatten(0, 1).tolist(), strict=True
    ):
        column, row = (x + 1) * 2, (y + 1) * 2
        expected = [
            [math.exp(-((j - column) ** 2 + (i - row) ** 2) / (2 * 0.8**2)) for j in range(5)]
            for i in range(5)
        ]
        torch.testing.assert_close(image.unflatten(0, (5, 5)), torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_position_is_the_centre_of_mass_of_a_bump_away_from_the_edges(make_task):
    task = make_task("bump_position", **PUBLISHED)
    positions = torch.tensor([[[-0.3, 0.2], [0.0, 0.4]]])
    image = task.images(positions).unflatten(2, (32, 32)).double()
    places = torch.arange(32).double() / 15.5 - 1
    total = image.sum(dim=(2, 3))
    x, y = (image.sum(dim=2) @ places) / total, (image.sum(dim=3) @ places) / total
    torch.testing.assert_close(torch.stack([x, y], dim=2), positions.double(), atol=1e-4, rtol=0)


def test_directions_exchange_inputs_and_targets(make_task, points):
    reading, drawing = (make_task("bump_position", direction=each) for each in ("to_position", "to_image"))
    one, other = (task.draw(*points(2, 30), "train", "train") for task in (reading, drawing))
    assert torch.equal(one.inputs, other.targets)
    assert torch.equal(one.targets, other.inputs)
    assert (reading.partition.inputs, reading.partition.outputs) == ((SHARED,) * 144, (0, 1))
    assert (drawing.partition.inputs, drawing.partition.outputs) == ((0, 1), (SHARED,) * 144)
    assert reading.input_shape == (12, 12)


@pytest.mark.parametrize("settings", [{}, PUBLISHED])
def test_withheld_positions_are_the_corner_and_training_is_uniform_on_the_rest(make_task, points, settings):
    task = make_task("bump_position", support="corner", **settings)
    edge = 2 * task.corner / (task.side - 1) - 1
    train = task.draw(*points(5, 2000), "train", "train").targets.double()
    withheld = task.draw(*points(5, 2000), "withheld", "test").targets.double()
    assert (train < edge).any(dim=2).all()
    assert (withheld >= edge - 1e-6).all()
    for coordinate in withheld.unbind(dim=2):
        assert stats.kstest(coordinate.flatten().numpy(), stats.uniform(edge, 1 - edge).cdf).pvalue > LEAST_P
    # The corner left out, the part with x below the edge has the larger share.
    low, everything = 2 * (edge + 1), 4 - (1 - edge) ** 2
    share = (train[..., 0] < edge).double().mean().item()
    assert abs(share - low / everything) < 4 * 0.5 / 10000**0.5


def test_change_of_module_1_is_uncorrelated(make_task, points):
    task = make_task("bump_position")
    samples = task.draw(*points(10, 2000), "full", "test")
    changed = task.changed(samples)
    assert torch.equal(changed.targets[:, :, 0], 2 * samples.targets[:, :, 0].square() - 1)
    pair = torch.stack([samples.targets[:, :, 0].flatten(), changed.targets[:, :, 0].flatten()])
    assert abs(torch.corrcoef(pair)[0, 1]) < 4 / 20000**0.5
    drawing = make_task("bump_position", direction="to_image")
    assert drawing.changed(drawing.draw(*points(1, 3), "full", "test")) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules": 3}, ["task.modules=3", "Set task.modules=2"]),
        ({"support": "corner", "corner": 11.0}, ["task.corner=11.0", "withholds nothing", "task.side=12"]),
        ({"support": "band"}, ["task.support='band'"]),
        ({"side": 1}, ["task.side=1"]),
        ({"width": 0.0}, ["task.width=0.0"]),
        ({"direction": "back"}, ["task.direction='back'"]),
    ],
)
def test_impossible_settings_are_refused_by_name(make_task, points, changes, words):
    with pytest.raises(ConfigError) as error:
        make_task("bump_position", **changes)
    for word in words:
        assert word in str(error.value)
    with pytest.raises(ConfigError, match=r"probes\.ranges"):
        make_task("bump_position").draw(*points(1, 2), "full", "test", torch.ones(2))
    with pytest.raises(ConfigError, match="withholds nothing"):
        make_task("bump_position").draw(*points(1, 2), "withheld", "test")
