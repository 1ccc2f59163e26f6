import itertools
import math

import pytest
import torch
from scipy import integrate

from modulab.errors import ConfigError
from modulab.partition import SHARED
from modulab.tasks import bumps


def response(point, centre, deviation):
    """Return exp(-|x - c|^2 / (2 w^2)), in plain Python."""
    distance = sum((x - c) ** 2 for x, c in zip(point, centre, strict=True))
    return math.exp(-distance / (2 * deviation**2))


@pytest.mark.parametrize(("coordinates", "grid", "width"), [(1, 7, 0.6), (2, 4, 1.0), (3, 3, 1.5)])
def test_each_cell_responds_as_a_gaussian_around_its_centre(coordinates, grid, width):
    points = torch.rand(2, 5, coordinates, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = bumps.responses(points, grid, width)
    centres = list(
        itertools.product([2 * place / (grid - 1) - 1 for place in range(grid)], repeat=coordinates)
    )
    deviation = width * 2 / (grid - 1)
    power, _ = integrate.quad(
        lambda x: (
            sum(response((x,), centre, deviation) ** 2 for centre in {(c[0],) for c in centres}) / grid / 2
        ),
        -1,
        1,
    )
    expected = [
        [
            [response(point, centre, deviation) / power ** (coordinates / 2) for centre in centres]
            for point in member
        ]
        for member in points.tolist()
    ]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("modules", "grid"), [(1, 16), (2, 16), (3, 8), (5, 5)])
def test_mean_square_response_is_one_however_many_cells_there_are(make_task, points, modules, grid):
    task = make_task("regression", modules=modules, code="bump", bump_grid=grid)
    inputs = task.encode(task.draw(*points(2, 1000), "full", "test").inputs)
    # Standard errors over 2,000 points are .02 at most.
    assert abs(inputs.square().mean().item() - 1) < 0.1


def test_no_input_belongs_to_one_module_and_outputs_stay_theirs(make_task):
    task = make_task("regression", modules=3, code="bump", bump_grid=4)
    assert task.partition.inputs == (SHARED,) * 64
    assert task.partition.outputs == (0, 1, 2)
    assert (task.in_features, task.out_features) == (64, 3)
    assert not task.ranges


def test_responses_to_a_point_do_not_depend_on_the_others(make_task, points):
    task = make_task("regression", modules=3, code="bump")
    drawn = task.draw(*points(7, 53), "train", "train").inputs
    encoded = task.encode(drawn)
    for member, point in ((0, 0), (3, 17), (6, 52)):
        assert torch.equal(
            task.encode(drawn[member : member + 1, point : point + 1])[0, 0], encoded[member, point]
        )
    assert torch.equal(task.encode(drawn[2:5, 8:21].clone()), encoded[2:5, 8:21])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"modules": 7},
            ["task.bump_grid=5", "5^7 inputs", "16384", "task.bump_grid to 4 or less", "task.modules"],
        ),
        ({"modules": 30}, ["5^30 inputs", "Set task.modules lower"]),
        ({"bump_grid": 1}, ["task.bump_grid=1"]),
        ({"bump_width": 0.0}, ["task.bump_width=0.0"]),
    ],
)
def test_codes_that_explode_are_refused(make_task, changes, words):
    with pytest.raises(ConfigError) as error:
        make_task("regression", code="bump", **changes)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", ["classification", "digits", "parity", "modular_arithmetic", "copying"])
def test_tasks_without_coordinates_have_no_bump_code(make_task, name):
    with pytest.raises(ConfigError, match=rf"task\.code=bump needs inputs that are coordinates.*{name}"):
        make_task(name, code="bump")


def test_largest_sizes_that_a_message_offers_are_accepted(make_task):
    for modules, grid in ((1, 2**14), (3, 25), (5, 6), (7, 4), (14, 2)):
        assert (
            make_task("regression", modules=modules, code="bump", bump_grid=grid).in_features == grid**modules
        )
        with pytest.raises(ConfigError, match=rf"task\.bump_grid to {grid} or less"):
            make_task("regression", modules=modules, code="bump", bump_grid=grid + 1)
