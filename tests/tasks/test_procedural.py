from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from torch import Tensor

from modulab.errors import ConfigError
from modulab.tasks.base import Task

Make = Callable[..., Task]
Points = Callable[..., tuple[Tensor, Tensor]]


def stacked(tokens: list[int]) -> list[int]:
    stack: list[int] = []
    for token in tokens:
        if token:
            stack.append(token)
        elif stack:
            stack.pop()
    return stack[::-1] + [0] * (len(tokens) - len(stack))


def innermost(tokens: list[int]) -> list[int]:
    stack: list[int] = []
    found: list[int] = []
    for token in tokens:
        if token > 2:
            assert stack.pop() == token - 2
        else:
            stack.append(token)
        found.append(stack[-1] if stack else 0)
    return found


def counted(tokens: list[int]) -> list[int]:
    num_open: Counter[int] = Counter()
    found: list[int] = []
    for token in tokens:
        kind = token - 2 if token > 2 else token
        num_open[kind] += -1 if token > 2 else 1
        assert num_open[kind] >= 0
        found.append(min(num_open[kind], 4))
    return found


def automaton(cells: list[int]) -> list[int]:
    rule = {"111": 0, "110": 1, "101": 1, "100": 0, "011": 1, "010": 1, "001": 1, "000": 0}
    size = len(cells)
    return [rule[f"{cells[i - 1]}{cells[i]}{cells[(i + 1) % size]}"] for i in range(size)]


def without_repeats(tokens: list[int]) -> list[int]:
    unique = list(dict.fromkeys(tokens))
    return unique + [0] * (len(tokens) - len(unique))


RULES: dict[str, tuple[Callable[[list[int]], list[int]], set[int]]] = {
    "identity": (lambda tokens: tokens, {1, 2, 3, 4}),
    "reverse": (lambda tokens: tokens[::-1], {1, 2, 3, 4}),
    "sort": (sorted, {1, 2, 3, 4}),
    "set": (without_repeats, {1, 2, 3, 4}),
    "stack": (stacked, {0, 1, 2, 3, 4}),
    "dyck": (innermost, {1, 2, 3, 4}),
    "shuffle": (counted, {1, 2, 3, 4}),
    "rule_110": (automaton, {0, 1}),
}
"""Each rule in plain Python, and the symbols that are read."""


@pytest.mark.parametrize("rule", RULES)
def test_answers_are_those_of_the_rule_in_plain_python(make_task: Make, points: Points, rule: str) -> None:
    task = make_task("procedural", rule=rule, length=7, modules=2)
    samples = task.draw(*points(2, 150), "train", "train")
    answer, symbols = RULES[rule]
    inputs = samples.inputs.view(2, 150, 2, 7, 5)
    assert (inputs.sum(dim=4) == 1).all()
    read = inputs.argmax(dim=4)
    assert set(read.flatten().tolist()) == symbols
    given = samples.targets.long().view(2, 150, 2, 7)
    for tokens, named in zip(read.flatten(0, 2).tolist(), given.flatten(0, 2).tolist(), strict=True):
        assert named == answer(tokens)
    assert len(read.flatten(0, 2).unique(dim=0)) > (50 if rule == "rule_110" else 300)


def test_sequences_that_have_no_number_are_refused(make_task: Make) -> None:
    with pytest.raises(ConfigError, match=r"task\.length=40 is too long"):
        make_task("procedural", length=40)
