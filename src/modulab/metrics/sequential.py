"""Learning in sequence: module 2's new function, then module 1's, then module 2's again.

This is the design of interference studies (A, B, A): what is lost of A while B is learned, by the error that returns,
and what is kept of it, by the steps that relearning saves (H. Ebbinghaus, "Über das Gedächtnis", 1885: the steps saved
as a share of those of the first learning). Each stage trains one module's output alone, under the one rule of
modulab.metrics.adaptation, with its optimiser reset, on fresh points.

Both are shares of what the same network learned, so networks which learn more, or faster, compare with others. To
first order in steps of gradient descent, the second stage moves module 2's outputs by the block K_21 of the tangent
kernel where it moves module 1's by K_11 (modulab.metrics.tangent). Both functions are new and have about as far to go,
so the share lost should be about |K_21|^2 / |K_11|^2, the square of `forgetting/cross_tangent`, which falls as one
over the width of a dense network. In a premodular network it is 0, to the bit.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Probes
from modulab.metrics.adaptation import SECONDS_PER_STEP, Adaptation, adapt_module
from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.streams import Stream, fold_in
from modulab.tasks.base import Task

_STAGES = (1, 0, 1)
"""The module, counted from 0, whose output each stage trains: module 2, module 1, and module 2 again."""
_CHANGED = (0, 1)
"""The modules whose functions are new in all stages."""


class Sequential(Measure):
    """What is lost of module 2's learning while module 1 learns, and how much faster module 2 is learned again.

    Module 2 counts as learned from the first look at which its error is below `probes.adaptation_error` of that of a
    constant answer. Each stage takes `probes.adaptation_steps` steps.

    - `forgetting/sequential/lost`: the rise of module 2's error in the second stage, as a share of its fall in the
      first. NaN where it did not fall.
    - `relearning/savings`: 1 less steps until module 2 is learned again over those of the first time. 1
      where it need not be learned again; NaN where it was not learned the first time, or had nothing to learn.
    - `forgetting/sequential/learning_steps`, `forgetting/sequential/relearning_steps`: both numbers of steps; the last
      one, which then means "at least", if it never is learned.
    - `forgetting/sequential/module_{module}@{stage}`: error of module 1 or 2 on its new function after a stage, 0 for
      the network as trained.

    Nothing for tasks that have no other functions for both modules (`Task.changed`).
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Return that each module has outputs of its own."""
        return ("output_modules",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its values."""
        return (
            Column("forgetting/sequential/lost", "Share of module 2's learning lost"),
            Column("relearning/savings", "Share of steps saved in relearning", ends_at_one=True),
            Column("forgetting/sequential/learning_steps", "Steps until module 2 is learned"),
            Column("forgetting/sequential/relearning_steps", "Steps until module 2 is learned again"),
            Column(
                "forgetting/sequential/module_{module}@{stage}",
                "Error of module {module} after stage {stage}",
            ),
        )

    def seconds(self, probes: Probes) -> float:
        """Return about how long it takes for a network."""
        return SECONDS_PER_STEP * probes.adaptation_steps * len(_STAGES)

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return that a single module has no others."""
        return "the task has one module" if task.modules == 1 else super().lacking(network, task)

    def take(self, probe: Probe) -> dict[str, Float[Tensor, " member"]]:
        """Return shares, steps and errors."""
        stages = learn_in_sequence(probe)
        if stages is None:
            return {}
        first, between, again = stages
        error, learned, rose = first.own[0], first.own[-1], between.errors[-1, :, first.module]
        fall = error - learned
        share = probe.settings.adaptation_error
        steps, steps_again = (stage.steps_until_learned(share) for stage in (first, again))
        comparable = first.learned(share).any(dim=0) & (steps > 0)
        measures = {
            "forgetting/sequential/lost": torch.where(fall > 0, (rose - learned) / fall, torch.nan),
            "relearning/savings": torch.where(comparable, 1 - steps_again / steps, torch.nan),
            "forgetting/sequential/learning_steps": steps,
            "forgetting/sequential/relearning_steps": steps_again,
        }
        errors = [first.errors[0], *(stage.errors[-1] for stage in stages)]
        for stage, of_modules in enumerate(errors):
            for module in _CHANGED:
                measures[f"forgetting/sequential/module_{module + 1}@{stage}"] = of_modules[:, module]
        return measures


def learn_in_sequence(probe: Probe) -> list[Adaptation] | None:
    """Train each member of a probe through all stages; None if the task has no other functions."""
    keys = fold_in(probe.keys, Stream.SEQUENTIAL)
    parameters = probe.seen_network.parameters
    steps, every = probe.settings.adaptation_steps, probe.settings.adaptation_every
    stages: list[Adaptation] = []
    for stage, module in enumerate(_STAGES):
        # When module 1 has learned does not matter, so its stage is looked at where it begins and ends.
        looks = every if module == _STAGES[0] else steps
        learned = adapt_module(probe, parameters, module, _CHANGED, fold_in(keys, stage), looks)
        if learned is None:
            return None
        parameters = learned.parameters
        stages.append(learned)
    return stages
