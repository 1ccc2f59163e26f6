"""A curriculum: networks are trained further under settings that change stage by stage, as far as they pass the stages.

A network continues to the next stage once its error on new points is below a level. A stage may make the task harder,
`task.recent: 3`, and a network larger, `architecture.grown: 2`: connections that a stage unmasks begin with the values
that they have in a fresh network, and all others with those that they have been trained to. Settings that would change
the structure of a network cannot be changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from pydantic import Field
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained
from modulab.analysis.further import train_further
from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.errors import mean_errors
from modulab.metrics.measure import Column
from modulab.metrics.probe import Probe, evaluation_samples, in_module_coordinates
from modulab.networks.base import Network, NetworkPopulation
from modulab.networks.self_trained import SelfTrained
from modulab.schema import read_settings
from modulab.training.program import initialise, network_of

_SECONDS_PER_VALUE = 5e-8
"""Time of a training step for each value of a sample at a site."""


class Curriculum(Analysis):
    """How many stages of a curriculum a trained network passes, and the error and steps of each."""

    stages: list[dict[str, Any]] = Field(
        min_length=1,
        description="settings that change at each stage, as in {task.recent: 3}; they also apply to later "
        "stages",
    )
    steps: int = Field(ge=1, description="maximum number of training steps of a stage")
    every: int = Field(ge=1, description="steps between evaluations of the error")
    level: float = Field(gt=0, description="a stage is passed when the test error is below this")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the whole curriculum and for each stage."""
        return (
            Column("passed", "Stages of the curriculum passed"),
            Column("steps", "Steps of the curriculum"),
            Column("error_stage_{stage}", "Test error at the end of stage {stage}"),
            Column("steps_stage_{stage}", "Steps of stage {stage}"),
        )

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why a network cannot go through the stages."""
        reason = super().lacking(network, member)
        if reason is None and isinstance(member.architecture, SelfTrained):
            reason = "the networks train themselves"
        for stage, changes in enumerate(self.stages, 1):
            if reason is not None:
                break
            reason = structure_kept(network, member, changes)
            if reason is None:
                member = changed(member, changes)
            else:
                reason = f"stage {stage}: {reason}"
        return reason

    def seconds(self, network: Network, member: Member) -> float:
        """Return about how long all stages take if half of their steps are needed."""
        values = network.step_units * member.training.batch_size
        return _SECONDS_PER_VALUE * values * self.steps * len(self.stages) / 2

    def take(self, trained: Trained) -> dict[str, Float64[Tensor, " member"]]:
        """Return the number of stages passed, and error and steps of each; NaN for stages that were not begun."""
        probe, members = trained.probe, list(trained.members)
        parameters, unmasked = probe.seen_network.parameters, probe.mask
        going_on = torch.ones(len(members), dtype=torch.bool, device=parameters.device)
        passed, total = torch.zeros_like(going_on, dtype=torch.float64), torch.zeros(len(members)).double()
        found: dict[str, Tensor] = {}
        for number, changes in enumerate(self.stages, 1):
            members = [changed(member, changes) for member in members]
            mask, fresh = initialise(members, probe.network.network)
            parameters = torch.where(unmasked > 0, parameters, fresh) * mask
            unmasked = mask
            probe.tell(f"stage {number} of {len(self.stages)}, {int(going_on.sum())} networks")
            parameters, errors, steps = self._stage(probe, members, parameters, mask, going_on)
            found[f"error_stage_{number}"] = torch.where(going_on, errors, torch.nan)
            found[f"steps_stage_{number}"] = torch.where(going_on, steps, torch.nan)
            total = total + torch.where(going_on, steps, 0.0)
            going_on = going_on & (errors < self.level)
            passed = passed + going_on
        return {"passed": passed, "steps": total, **found}

    def _stage(
        self, probe: Probe, members: Sequence[Member], parameters: Tensor, mask: Tensor, going_on: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return parameters, errors and steps of all members when they pass the stage, or at its end.

        Those that have passed are still trained with the others, and their parameters at the stage's end are kept.
        """
        kept, errors = parameters.clone(), self._errors(probe, members, parameters)
        steps = torch.zeros_like(errors)
        learning = going_on & (errors >= self.level)
        chosen = torch.nonzero(learning).flatten()
        if not len(chosen):
            return kept, errors, steps
        looks = train_further(
            [members[place] for place in chosen.tolist()],
            parameters[chosen],
            mask[chosen],
            self.steps,
            self.every,
        )
        now = parameters.clone()
        for look, trained in enumerate(looks, 1):
            now[chosen] = trained
            found = self._errors(probe, members, now)
            kept = torch.where(learning[:, None], now, kept)
            errors = torch.where(learning, found, errors)
            steps = torch.where(learning, float(min(look * self.every, self.steps)), steps)
            learning = learning & (errors >= self.level)
            if not learning.any():
                break
        return kept, errors, steps

    def _errors(
        self, probe: Probe, members: Sequence[Member], parameters: Float[Tensor, "member parameter"]
    ) -> Float64[Tensor, " member"]:
        """Return test errors of networks as trained on the task that all members have."""
        task = members[0].task
        points = evaluation_samples(task, probe.keys, probe.settings.num_samples, "full")
        population = NetworkPopulation(probe.network.network, parameters)
        return mean_errors(in_module_coordinates(population, probe.rotation), points, task).double()


def structure_kept(network: Network, member: Member, changes: Mapping[str, Any]) -> str | None:
    """Return why a member's settings cannot be changed while its network stays as it is, or None if they can."""
    try:
        same = network_of(changed(member, changes)) == network
    except ConfigError as error:
        return str(error)
    return None if same else "the network would have another structure"


def changed(member: Member, changes: Mapping[str, Any]) -> Member:
    """Return a member with other values of some settings, given as GROUP.KEY.

    Raises: ConfigError for a setting that it does not have, and as the check of the value does.
    """
    for name, value in changes.items():
        group, _, key = name.partition(".")
        node: Any = getattr(member, group, None)
        if not key or key not in getattr(type(node), "model_fields", {}):
            raise ConfigError(f"it has no setting {name}.")
        target = f"{type(node).__module__}.{type(node).__qualname__}"
        other = read_settings({"_target_": target, **node.model_dump(), key: value}, group, type(node))
        member = member.model_copy(update={group: other})
    return member
