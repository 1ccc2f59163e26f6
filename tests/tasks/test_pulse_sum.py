from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from torch import Tensor

from modulab.errors import ConfigError
from modulab.tasks.base import Task

Make = Callable[..., Task]
Points = Callable[..., tuple[Tensor, Tensor]]


def pulses_of(steps: list[list[float]], amplitude: float) -> list[tuple[int, int, int]]:
    """Return first step, length and channel of each pulse of a sequence, read step by step."""
    found: list[tuple[int, int, int]] = []
    before: list[int] = []
    for step, values in enumerate(steps):
        assert set(values) <= {0.0, amplitude}
        now = [channel for channel, value in enumerate(values) if value > 0]
        assert len(now) <= 1
        if now and now == before:
            start, length, channel = found[-1]
            found[-1] = (start, length + 1, channel)
        elif now:
            found.append((step, 1, now[0]))
        before = now
    return found


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"length": 50, "pulse_steps": 2, "gap": 5, "window": 40},
        {"modulus": 5, "pulses": 4, "gap": 1, "window": 7, "length": 8},
    ],
)
def test_targets_are_sums_of_pulses_that_lie_apart_within_the_window(
    make_task: Make, points: Points, sizes: dict[str, int]
) -> None:
    task = make_task("pulse_sum", modules=2, **sizes)
    samples = task.draw(*points(2, 80), "train", "train")
    starts = set()
    for inputs, targets in zip(samples.inputs.flatten(0, 1), samples.targets.flatten(0, 1), strict=True):
        for own, target in zip(inputs.view(2, task.length, task.modulus), targets, strict=True):
            found = pulses_of(own.tolist(), task.amplitude)
            assert len(found) == task.pulses
            assert all(length == task.pulse_steps for _, length, _ in found)
            for (one, length, _), (other, _, _) in pairwise(found):
                assert other - one - length >= task.gap
            assert found[-1][0] + task.pulse_steps <= task.window
            assert target == sum(channel for _, _, channel in found) % task.modulus
            starts.add(found[0][0])
    assert set(samples.targets.flatten().tolist()) == set(range(task.modulus))
    assert 0 in starts
    assert len(starts) > task._free_steps / 2


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"window": 30}, r"task\.window=30 is longer than task\.length=20"),
        ({"gap": 7}, r"no room for 3 pulses .* Set it to 17 or more"),
    ],
)
def test_pulses_that_do_not_fit_are_refused(make_task: Make, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task("pulse_sum", **sizes)
