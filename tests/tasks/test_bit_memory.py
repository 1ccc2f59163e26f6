from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modulab.errors import ConfigError
from modulab.networks.recurrent import Recurrent
from modulab.tasks.base import Task

Make = Callable[..., Task]
Points = Callable[..., tuple[Tensor, Tensor]]


def answer(bits: list[int], recent: int, question: str) -> int:
    """Return the answer of an automaton that reads one bit after another."""
    memory, held = 0, []
    for bit in bits[-recent:]:
        memory ^= bit
        held.append(bit)
    return memory if question == "parity" else int(held[0] == held[-1])


@pytest.mark.parametrize("question", ["parity", "match"])
@pytest.mark.parametrize("recent", [2, 5, 7])
def test_targets_are_the_answers_for_each_modules_last_bits(
    make_task: Make, points: Points, question: str, recent: int
) -> None:
    task = make_task("bit_memory", modules=2, length=7, recent=recent, question=question)
    samples = task.draw(*points(2, 60), "train", "train")
    for bits, targets in zip(samples.inputs.flatten(0, 1).int(), samples.targets.flatten(0, 1), strict=True):
        own = bits.view(2, 7).tolist()
        assert targets.tolist() == [answer(each, recent, question) for each in own]
    assert 0.3 < samples.targets.mean().item() < 0.7


def network(length: int, units: int) -> tuple[Recurrent, dict[str, Tensor]]:
    shape = Recurrent(
        in_features=length,
        out_features=2,
        units=units,
        activation="relu",
        leak=1.0,
        steps=length,
        sequences=1,
    )
    return shape, {part.name: torch.zeros(part.shape) for part in shape.layout}


def wrong(shape: Recurrent, parts: dict[str, Tensor], task: Task, points: tuple[Tensor, Tensor]) -> float:
    row = torch.cat([parts[part.name].flatten() for part in shape.layout])
    samples = task.draw(*points, "train", "train")
    outputs = shape.forward(row.expand(2, -1).contiguous(), samples.inputs)
    return task.loss_function.errors(outputs, samples.targets, task.partition).max().item()


@pytest.mark.parametrize("name", ["bit_memory", "parity"])
def test_two_relu_units_are_the_automaton_of_parity(make_task: Make, points: Points, name: str) -> None:
    # h_1' = relu(h_1 + h_2 - x), h_2' = relu(x - h_1 - h_2), whose sum is |s - x|: the parity with x of the parity s.
    sizes = {"length": 9, "recent": 9, "question": "parity"} if name == "bit_memory" else {"bits": 9}
    task = make_task(name, modules=1, **sizes)
    shape, parts = network(9, 2)
    parts["read.weight"][:, 0] = torch.tensor([-1.0, 1.0])
    parts["recurrent.weight"][:] = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    parts["write.weight"][:] = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    parts["write.bias"][:] = torch.tensor([0.5, -0.5])
    assert wrong(shape, parts, task, points(2, 400)) == 0
    parts["recurrent.weight"][0, 1] = 0
    assert wrong(shape, parts, task, points(2, 400)) > 0.1


@pytest.mark.parametrize("recent", [2, 4, 6])
def test_a_shift_register_and_two_units_are_the_automaton_of_delayed_match(
    make_task: Make, points: Points, recent: int
) -> None:
    task = make_task("bit_memory", modules=1, length=9, recent=recent, question="match")
    held = recent - 1
    shape, parts = network(9, held + 2)
    parts["read.weight"][0, 0] = 1.0
    for unit in range(1, held):
        parts["recurrent.weight"][unit, unit - 1] = 1.0
    # relu(x - s) and relu(s - x), where s is the bit at the end of the register: both 0 if the two are equal.
    parts["read.weight"][-2:, 0] = torch.tensor([1.0, -1.0])
    parts["recurrent.weight"][-2:, held - 1] = torch.tensor([-1.0, 1.0])
    parts["write.weight"][1, -2:] = -1.0
    parts["write.bias"][1] = 0.5
    assert wrong(shape, parts, task, points(2, 400)) == 0


def test_more_recent_bits_than_there_are_are_refused(make_task: Make) -> None:
    with pytest.raises(ConfigError, match=r"task\.recent=5 is more than .*task\.length=4"):
        make_task("bit_memory", length=4, recent=5)
