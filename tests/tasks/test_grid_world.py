"""The grid world: all states by brute force, the loss of one choice, and networks of four units that solve it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from modulab.errors import ConfigError
from modulab.tasks.base import Task
from modulab.tasks.grid_world import ACTIONS, PolicyLoss, state_distances
from tests.members import make_member
from tests.perceptrons import planted

Make = Callable[..., Task]
Points = Callable[..., tuple[Tensor, Tensor]]
STEPS = {"left": (-1, 0), "right": (1, 0), "down": (0, -1), "up": (0, 1)}


def states(size: int) -> set[tuple[int, int]]:
    line = range(-size, size + 1)
    return {(x, y) for x in line for y in line if abs(x) != abs(y)}


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_states_are_the_grid_without_its_diagonals_each_once(size: int) -> None:
    found = state_distances(torch.arange(4 * size**2)[None])[0].long().tolist()
    assert len(found) == 4 * size**2
    assert set(map(tuple, found)) == states(size)


def test_the_largest_states_are_exact() -> None:
    size = 1000
    last = torch.tensor([[4 * size**2 - 1, 4 * (size - 1) ** 2, 4 * (size - 1) ** 2 - 1]])
    assert state_distances(last)[0].long().tolist() == [[999, 1000], [-1000, -999], [998, 999]]


def test_actions_lead_along_the_larger_distance_and_states_are_equally_frequent(
    make_task: Make, points: Points
) -> None:
    task = make_task("grid_world", size=3, flags=2)
    drawn = task.draw(*points(2, 36_000), "train", "train")
    distances = (drawn.inputs[0, :, :2] * 3).round().long()
    found, counts = distances.unique(dim=0, return_counts=True)
    assert set(map(tuple, found.tolist())) == states(3)
    assert float((counts - 1000).abs().max()) < 150  # five standard deviations
    for (x, y), target in zip(distances[:300].tolist(), drawn.targets[0, :300, 0].tolist(), strict=True):
        step = STEPS[ACTIONS[int(target)]]
        along = (abs(x), abs(y))
        assert max(along) - 1 == abs(x - step[0] if along[0] > along[1] else y - step[1])
        assert (step[0] == 0) == (along[1] > along[0])
    flags = drawn.inputs[:, :, 2:]
    assert set(flags.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(flags.mean(dim=1), torch.zeros(2, 2), rtol=0, atol=0.03)


def test_values_are_those_of_which_the_best_action_has_the_largest(make_task: Make, points: Points) -> None:
    actions, values = (
        make_task("grid_world", imitate=imitate).draw(*points(2, 50), "train", "train")
        for imitate in ("actions", "values")
    )
    assert torch.equal(actions.inputs, values.inputs)
    assert torch.equal(values.targets.argmax(dim=2), actions.targets[:, :, 0].long())
    dx, dy = values.inputs[:, :, 0], values.inputs[:, :, 1]
    assert torch.equal(values.targets, torch.stack([-dx, dx, -dy, dy], dim=2))


def test_loss_is_the_cross_entropy_of_one_choice_and_modules_share_it(make_task: Make) -> None:
    partition, loss = make_task("grid_world").partition, PolicyLoss()
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 40, 4, generator=generator)
    targets = torch.randint(4, (3, 40, 1), generator=generator).float()
    flat = nn.functional.cross_entropy(
        outputs.flatten(0, 1), targets.flatten().long(), reduction="none"
    ).view(3, 40)
    torch.testing.assert_close(loss.total(outputs, targets, partition), flat.mean(dim=1))
    parts = loss.by_module(outputs, targets, partition)
    torch.testing.assert_close(parts.mean(dim=1), flat.mean(dim=1))
    along_x = targets[:, :, 0] < 2
    torch.testing.assert_close(parts[:, 0], 2 * (flat * along_x).sum(dim=1) / 40)
    errors = loss.errors(outputs, targets, partition)
    wrong = outputs.argmax(dim=2) != targets[:, :, 0]
    torch.testing.assert_close(errors.mean(dim=1), wrong.float().mean(dim=1))
    torch.testing.assert_close(errors[:, 1], 2 * (wrong & ~along_x).sum(dim=1) / 40)


def test_a_constant_choice_is_wrong_wherever_another_is_right(make_task: Make) -> None:
    targets = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3])[None, :, None].float()
    errors = PolicyLoss().constant_errors(targets, make_task("grid_world").partition)
    assert errors.tolist() == [[2 * 1 / 8, 2 * 4 / 8]]


@pytest.mark.parametrize("imitate", ["actions", "values"])
def test_four_units_whose_axes_do_not_meet_solve_either_task(
    make_task: Make, points: Points, imitate: str
) -> None:
    """relu(dx), relu(-dx), relu(dy), relu(-dy) give -dx, dx, -dy and dy, and read no flag."""
    task = make_task("grid_world", imitate=imitate, flags=2)
    read = torch.zeros(1, 4, 4)
    write = torch.zeros(1, 4, 4)
    for axis in (0, 1):
        for unit, sign in ((2 * axis, 1.0), (2 * axis + 1, -1.0)):
            read[0, unit, axis] = sign
            write[0, 2 * axis : 2 * axis + 2, unit] = torch.tensor([-sign, sign])
    network = planted((read, write), (torch.zeros(1, 4), torch.zeros(1, 4)), "relu")
    drawn = task.draw(*points(1, 400), "full", "test")
    errors = task.loss_function.errors(network.forward(drawn.inputs), drawn.targets, task.partition)
    assert errors.tolist() == [[0.0, 0.0]]


def test_a_grid_has_two_axes() -> None:
    with pytest.raises(ConfigError, match=r"task\.modules=2"):
        make_member({"task": "grid_world"}, task__modules=3)
