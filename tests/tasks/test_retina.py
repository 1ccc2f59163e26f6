"""The retina: its objects, goals by brute force, and goals that change with the step alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.errors import mean_errors
from modulab.metrics.input_specialisation import InputSpecialisation
from modulab.metrics.modularity import measure_structural
from modulab.tasks.base import Samples, Task
from modulab.tasks.retina import LEFT_OBJECTS, RIGHT_OBJECTS, objects, pixels
from modulab.training.data import PopulationData
from tests.members import make_member
from tests.metrics.populations import probe_of
from tests.networks.kinds import check_packing
from tests.perceptrons import Perceptrons, planted
from tests.training.fitting import CPU

Make = Callable[..., Task]
Points = Callable[..., tuple[Tensor, Tensor]]
EVERY = torch.arange(256, dtype=torch.int32)[None]
VARYING = {
    "data__num_samples": None, "training__batch_size": 16, "training__steps": 30, "training__curve_every": 5,
    "task__goal_period": 48, "architecture__width": 6,
}  # fmt: skip
OBJECTS = ("####", "###.", "#.#.", "#.##", "#...", "##.#", "..#.", ".###")
"""The left objects as pixels, the first pixel first."""


def shown(side: tuple[float, ...]) -> str:
    return "".join("#" if pixel > 0 else "." for pixel in side)


def answers(images: Tensor, goal: str) -> list[bool]:
    """Return whether each image meets a goal, from its pixels."""
    found: list[bool] = []
    for image in images.tolist():
        left = shown(tuple(image[:4])) in OBJECTS
        right = shown(tuple(reversed(image[4:]))) in OBJECTS
        found.append((left and right) if goal == "and" else (left or right))
    return found


def numbers(samples: Samples) -> Tensor:
    """Return the number of each image."""
    return ((samples.inputs > 0).long() * 2 ** torch.arange(8)).sum(dim=2)


def make_varying(goals: str, **changes: Any) -> Member:
    return make_member({"task": "retina"}, **VARYING, task__goals=goals, **changes)


def detectors(goal: str, joint: bool) -> Perceptrons:
    """Return a network with one hidden unit for each object, relu(o.x - 3), which is 1 on that object and else 0."""
    every = pixels(EVERY)[0]
    left = [every[number, :4] for number in LEFT_OBJECTS]
    right = [every[number, 4:] for number in RIGHT_OBJECTS]
    reads = torch.block_diag(torch.stack(left), torch.stack(right))[None]
    if joint:
        writes = torch.cat([torch.zeros(1, 16), torch.ones(1, 16)])[None]
        bias = torch.tensor([[0.0, -1.5 if goal == "and" else -0.5]])
    else:
        writes = torch.zeros(1, 4, 16)
        writes[0, 1, :8] = writes[0, 3, 8:] = 1.0
        bias = torch.tensor([[0.0, -0.5, 0.0, -0.5]])
    return planted([reads, writes], [torch.full((1, 16), -3.0), bias], "relu")


def test_the_objects_are_eight_patterns_a_side_and_the_goals_64_and_192_of_256_images() -> None:
    left, right = objects(EVERY)
    assert [int(left.sum()), int(right.sum())] == [128, 128]
    assert len(set(LEFT_OBJECTS)) == len(set(RIGHT_OBJECTS)) == 8
    assert {shown(tuple(image[:4])) for image in pixels(EVERY)[0][left[0]].tolist()} == set(OBJECTS)
    mirrored = {shown(tuple(reversed(image[4:]))) for image in pixels(EVERY)[0][right[0]].tolist()}
    assert mirrored == set(OBJECTS)
    assert [int((left & right).sum()), int((left | right).sum())] == [64, 192]


@pytest.mark.parametrize(("goal", "share"), [("and", 1 / 4), ("or", 3 / 4)])
def test_targets_are_the_goal_of_every_image(
    make_task: Make, points: Points, goal: str, share: float
) -> None:
    task = make_task("retina", goal=goal)
    samples = task.draw(*points(4, 4000), "full", "test")
    for member in range(4):
        expected = answers(samples.inputs[member], goal)
        assert samples.targets[member].tolist() == [[float(answer)] * 2 for answer in expected]
    assert set(numbers(samples).flatten().tolist()) == set(range(256))
    assert abs(float(samples.targets.mean()) - share) < 0.02
    errors = task.loss_function.constant_errors(samples.targets, task.partition)
    assert (errors - 1 / 4).abs().max() < 0.05  # a constant answer is right in 3 of 4 images


def test_separate_outputs_say_of_each_side_whether_it_shows_an_object(
    make_task: Make, points: Points
) -> None:
    task = make_task("retina", outputs="separate")
    samples = task.draw(*points(2, 500), "train", "train")
    for image, target in zip(samples.inputs.flatten(0, 1), samples.targets.flatten(0, 1), strict=True):
        left, right = target.tolist()
        assert answers(image[None], "and") == [bool(left and right)]
        assert answers(image[None], "or") == [bool(left or right)]
    for module in range(2):
        changed = task.changed(samples, module)
        assert changed is not None
        assert torch.equal(changed.targets[:, :, module], 1 - samples.targets[:, :, module])
        assert torch.equal(changed.targets[:, :, 1 - module], samples.targets[:, :, 1 - module])


@pytest.mark.parametrize("goal", ["and", "or"])
def test_modularly_varying_goals_take_turns_by_the_number_of_a_point_in_training_alone(
    make_task: Make, points: Points, goal: str
) -> None:
    task = make_task("retina", goal=goal, goals="modular", goal_period=32)
    keys, counters = points(3, 200)
    samples = task.draw(keys, counters, "train", "train")
    other = {"and": "or", "or": "and"}[goal]
    for member, place in itertools.product(range(3), range(200)):
        asked = other if place // 32 % 2 else goal
        assert [bool(samples.targets[member, place, 0])] == answers(samples.inputs[member, [place]], asked)
    for region, split in (("train", "test"), ("full", "test")):
        measured = task.draw(keys, counters, region, split)
        assert measured.targets[0, :, 0].tolist() == [float(met) for met in answers(measured.inputs[0], goal)]


def test_random_goals_are_functions_of_the_image_new_in_every_second_period(
    make_task: Make, points: Points
) -> None:
    task = make_task("retina", goals="random", goal_period=4096)
    samples = task.draw(*points(2, 6 * 4096), "train", "train")
    images, targets = numbers(samples), samples.targets[:, :, 0]
    sets: list[Tensor] = []
    for member, period in itertools.product(range(2), range(6)):
        own = slice(period * 4096, (period + 1) * 4096)
        seen, met = images[member, own], targets[member, own]
        counts = torch.bincount(seen, minlength=256)
        positive = torch.bincount(seen, weights=met.double(), minlength=256)
        assert ((positive == 0) | (positive == counts)).all()  # one answer for each image
        if period % 2:
            sets.append((positive > 0).double())
        else:
            assert met.tolist() == [float(each) for each in answers(samples.inputs[member, own], "and")]
    together = torch.stack(sets)
    # Shares of 3/4, to five standard errors of 256 draws; no set is like another, and none like a goal.
    assert (together.mean(dim=1) - 0.75).abs().max() < 5 * (0.75 * 0.25 / 256) ** 0.5
    left, right = objects(EVERY)
    correlations = torch.corrcoef(torch.cat([together, (left | right).double(), (left & right).double()]))
    assert (correlations - torch.eye(8)).abs()[:6].max() < 5 / 256**0.5


@pytest.mark.parametrize("goals", ["modular", "random"])
def test_networks_under_varying_goals_end_in_the_same_bits_however_they_are_packed(goals: str) -> None:
    check_packing([make_varying(goals, seed=seed) for seed in (0, 1, 5)] + [make_varying("fixed")])


@pytest.mark.parametrize("goals", ["modular", "random"])
def test_training_that_goes_on_in_the_middle_of_a_period_sees_the_goals_of_one_that_was_not_cut(
    goals: str,
) -> None:
    members = [make_varying(goals, seed=seed) for seed in (0, 1)]
    whole = PopulationData(members, 0, CPU)
    later = PopulationData(members, 10, CPU)
    for index in range(later.num_chunks):
        expected = whole.chunk(index + 2)
        assert torch.equal(later.chunk(index).table, expected.table)
        assert later.chunk(index).first_step == expected.first_step


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__num_samples": 64}, ["data.num_samples=64", "data.num_samples=null"]),
        ({"training__batch_size": 32}, ["task.goal_period=48", "training.batch_size=32"]),
        ({"task__outputs": "separate"}, ["task.goals=modular", "task.outputs=joint"]),
        ({"task__modules": 3}, ["task.modules=3", "task.modules=2"]),
    ],
)
def test_goals_that_cannot_vary_are_refused_by_name(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        make_member({"task": "retina"}, **{**VARYING, "task__goals": "modular", **changes})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("goal", ["and", "or"])
def test_a_network_of_one_detector_for_each_object_solves_the_retina_and_is_wholly_modular(
    make_task: Make, goal: str
) -> None:
    network = detectors(goal, joint=True)
    task = make_task("retina", goal=goal)
    probe = probe_of(task, network, num_samples=2000)
    assert mean_errors(network, probe.samples, task).tolist() == [0.0]
    found = InputSpecialisation(partitions=2000).take(probe)
    assert found["modularity/input_specialisation"].tolist() == [1.0]
    # All units read four pixels of one side alike. Of the 70 halves of eight pixels 2 have all four of them or none,
    # 32 three or one, and 36 two: (2 * 1 + 32 * .5 + 36 * 0) / 70.
    assert found["modularity/input_specialisation_null"].tolist() == pytest.approx([18 / 70], abs=0.025)
    assert found["modularity/input_specialisation_excess"].tolist() == pytest.approx([52 / 70], abs=0.025)


def test_detectors_with_an_output_for_each_side_have_structural_modularity_1(make_task: Make) -> None:
    network, task = detectors("and", joint=False), make_task("retina", outputs="separate")
    probe = probe_of(task, network, num_samples=1000)
    assert mean_errors(network, probe.samples, task).tolist() == [0.0]
    assert measure_structural(probe)["modularity/structural"].tolist() == [1.0]
