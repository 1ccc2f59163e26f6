"""Forgetting and adaptation: after training, module 1's function changes and only its output is trained on.

modulab.metrics.adaptation describes how networks are trained further. Every member continues from its final
weights.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from modulab.metrics.adaptation import SECONDS_PER_STEP, Adaptation, adapt_module
from modulab.metrics.measure import Column, measure
from modulab.metrics.probe import Probe
from modulab.streams import Stream, fold_in


@measure(
    Column("forgetting/others_rise", "Rise of other modules' error"),
    Column("forgetting/others_rise_at_learned", "Rise of other modules' error when learned"),
    Column("forgetting/adaptation_steps", "Steps until learned"),
    Column("forgetting/module_1", "Module 1's error after adaptation"),
    needs=("output_modules",),
    seconds=lambda probes: SECONDS_PER_STEP * probes.adaptation_steps,
)
def measure_forgetting(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return how far the other modules' errors rise while module 1 learns another function, and how long it takes.

    Module 1 counts as learned from the first look at which its error is below `probes.adaptation_error` of
    that of a constant answer.

    - `forgetting/others_rise`: rise of the other modules' mean error by the last step.
    - `forgetting/others_rise_at_learned`: the same by the step at which module 1 is learned, so members
      are compared at equal adaptation.
    - `forgetting/adaptation_steps`: that step; the last one, which then means "at least", if it never is.
    - `forgetting/module_1`: module 1's error after the last step.

    No rises with one module, and nothing for tasks that have no other function (`Task.changed`).
    """
    adaptation = adapt(probe)
    if adaptation is None:
        return {}
    share = probe.settings.adaptation_error
    measures = {
        "forgetting/adaptation_steps": adaptation.steps_until_learned(share),
        "forgetting/module_1": adaptation.own[-1],
    }
    if probe.task.modules > 1:
        others = adaptation.errors[:, :, 1:]
        rises = others.mean(dim=2) - others[0].mean(dim=1)
        measures["forgetting/others_rise"] = rises[-1]
        measures["forgetting/others_rise_at_learned"] = rises.gather(0, adaptation.first_look(share)[None])[0]
    return measures


def adapt(probe: Probe) -> Adaptation | None:
    """Train each member of a probe further with module 1's function changed; None if the task has no other."""
    keys = fold_in(probe.keys, Stream.ADAPTATION)
    every = probe.settings.adaptation_every
    return adapt_module(probe, probe.seen_network.parameters, 0, (0,), keys, every)
