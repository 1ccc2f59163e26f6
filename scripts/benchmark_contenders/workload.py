"""What every contender trains: the reference workload, and what it reports back.

A network has 2 inputs, 48 relu units and 2 outputs; weights begin normal with variance 1 / fan-in, biases at 0.
Network by network, 4,096 points x are drawn uniformly from [-1, 1]^2 once; targets are sin(pi x_1) and
2 x_2^2 - 1; a step draws 256 of them with replacement. In training a hidden activity a becomes
a + sigma sqrt(a) xi, xi a fresh normal draw for every network, step, sample and unit. The derivative of
the square root at 0 counts as 0; in a relu network the derivative of relu sees to that, because it discards
what flows back to a silent unit, be it infinite. Mean squared error, Adam, constant learning rate.

Networks of one population have their own points, initial weights, minibatches and noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

IN_FEATURES = 2
HIDDEN_FEATURES = 48
OUT_FEATURES = 2
NUM_SAMPLES = 4096
BATCH_SIZE = 256
LEARNING_RATE = 3e-3
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
SIGMA = 0.2
LOSS_WINDOW = 10
"""The losses reported are means over this many steps, the first and the last."""


class SkippedContender(Exception):
    """A contender cannot run here; the message says why."""


@dataclass(frozen=True)
class Workload:
    """How much to train in one repeat: a population or, where networks are trained one by one, a sample of it."""

    population: int
    steps: int
    noise: bool
    threads: int
    quick: bool = False
    device: str = "cpu"
    """cpu or cuda."""

    @property
    def sigma(self) -> float:
        """Return the noise scale."""
        return SIGMA if self.noise else 0.0


@dataclass(frozen=True)
class Timing:
    """One repeat: its time, and the training loss by which to see that the work was done."""

    seconds: float
    network_steps: int
    first_loss: float
    last_loss: float
    startup_seconds: float = 0.0
    """Time a network needs before its first step, where a contender pays it for every network."""


Repeat = Callable[[int], Timing]
"""Takes the number of the repeat, from which seeds are made; trains and times."""
