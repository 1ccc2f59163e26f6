"""Programs: what a training step computes for a member, as opposed to the numbers it computes with.

Members of one population may differ in noise, regulariser, optimiser coefficients and much else, which are
numbers, one per member. What remains decides which operations run: a program. A member's program depends on
its own settings alone, and a block of members never mixes programs, so packing cannot change the
order in which a member's numbers are added up.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.config.settings import Member
from modulab.foreign import check_tensor, dotted_name, is_foreign, kind_of, own_draws_only, wrong_result
from modulab.losses import Loss
from modulab.networks.base import Architecture, Network
from modulab.noise import Distribution
from modulab.partition import Partition
from modulab.regularisers import Regulariser
from modulab.streams import member_keys
from modulab.tasks.base import Task
from modulab.training.points import first_points


@dataclass(frozen=True)
class Program:
    """Everything about a training step that is not one number per member."""

    network: Network
    partition: Partition
    loss: Loss
    batch_size: int
    optimiser: str
    noise: Distribution | None
    """The distribution of noise, None without noise."""
    noisy_sites: tuple[str, ...]
    """The places of a pass at which it acts: sites, or their pre-activations."""
    noisy_inputs: bool
    """Whether it acts on the inputs."""
    regulariser: type[Regulariser] | None
    variant: str
    coefficient_names: tuple[str, ...]

    @property
    def num_features(self) -> int:
        """Return the number of inputs and target values of one sample."""
        return self.network.in_features + self.loss.num_targets(self.partition)


def network_of(member: Member) -> Network:
    """Return the structure of a member's network."""
    # Keyed by its code too, which a notebook may replace. pyright takes settings for unhashable.
    parts: Any = type(member.architecture).network, member.architecture, member.task
    return _network(*parts)


@functools.lru_cache(maxsize=1024)
def _network(
    make: Callable[[Architecture, Task], Network], architecture: Architecture, task: Task
) -> Network:
    with own_draws_only(architecture):
        network: Any = make(architecture, task)
    if not isinstance(network, Network):
        raise wrong_result(
            f"it is {kind_of(network)}",
            "a modulab.networks.base.Network",
            f"{dotted_name(architecture)}.network",
        )
    return network


def initialise(
    members: Sequence[Member], network: Network
) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
    """Return each member's mask and its parameters before training, which its seed and settings determine."""
    keys = member_keys([member.seed for member in members])
    architectures = [member.architecture for member in members]
    with own_draws_only(network):
        mask, parameters = network.initialise(architectures, members[0].task.partition, keys)
    for part, values in (("mask", mask), ("parameters", parameters)):
        shape = (len(members), network.num_parameters)
        check_tensor(values, shape, f"{dotted_name(network)}.initialise", part)
    if is_foreign(network):
        _check_sites(network, parameters[:1])
    return mask, informed(members, network, parameters)


def _check_sites(network: Network, parameters: Float[Tensor, "one parameter"]) -> None:
    """Check that a pass calls `tap` at the sites that a network states, in their order, which measures follow.

    Raises: ForeignError.
    """
    points, name = 2, dotted_name(network)
    with own_draws_only(network):
        recording = network.record(parameters, torch.zeros(1, points, network.in_features))
    stated = [site.name for site in network.sites]
    visited = [place for place in recording.values if place in stated]
    if visited != stated:
        raise wrong_result(
            f"it states {stated}, and a pass calls tap at {visited}",
            "the sites at which a pass calls tap, in its order",
            f"{name}.sites",
        )
    for site in network.sites:
        shape = (1, site.units, site.visits * site.positions * points)
        check_tensor(recording.values[site.name], shape, f"{name}.forward", f"the activity at {site.name}")


def informed(
    members: Sequence[Member], network: Network, parameters: Float[Tensor, "member parameter"]
) -> Float[Tensor, "member parameter"]:
    """Return parameters before training in which those that architectures take from task and points are as they say."""
    if all(member.architecture.points_read is None for member in members):
        return parameters
    return torch.stack([_informed(*each, network) for each in zip(members, parameters, strict=True)])


def _informed(
    member: Member, parameters: Float[Tensor, " parameter"], network: Network
) -> Float[Tensor, " parameter"]:
    most = member.architecture.points_read
    if most is None:
        return parameters
    points = first_points(member, member_keys([member.seed]), most)[0]
    with own_draws_only(member.architecture):
        own = member.architecture.informed(network, parameters.cpu(), member.task, points)
    check_tensor(own, parameters.shape, f"{dotted_name(member.architecture)}.informed")
    return own.to(parameters.device)


def _noisy_sites(member: Member) -> tuple[str, ...]:
    if not member.noise.is_on:
        return ()
    network = network_of(member)
    return member.noise.choose([site.name for site in network.sites], list(network.pre_activations.values()))


def _is_noisy(member: Member) -> bool:
    return member.noise.acts_on_inputs or bool(_noisy_sites(member))


def _coefficients(member: Member, noisy: bool) -> dict[str, float]:
    training = member.training
    values = {
        "momentum": training.momentum,
        "beta1": training.beta1,
        "beta2": training.beta2,
        "epsilon": training.epsilon,
        "weight_decay": training.weight_decay,
        "gradient_clip": math.inf if training.gradient_clip is None else training.gradient_clip,
    }
    if noisy:
        values |= {f"noise.{name}": value for name, value in member.noise.coefficients().items()}
    if member.regulariser.strength > 0:
        values |= {f"regulariser.{name}": value for name, value in member.regulariser.coefficients().items()}
    return values


def program_of(member: Member) -> Program:
    """Return the program that trains a member."""
    regularised = member.regulariser.strength > 0
    noisy_sites, noisy = _noisy_sites(member), _is_noisy(member)
    return Program(
        network=network_of(member),
        partition=member.task.partition,
        loss=member.task.loss_function,
        batch_size=member.training.batch_size,
        optimiser=member.training.optimiser,
        noise=member.noise.distribution if noisy else None,
        noisy_sites=noisy_sites,
        noisy_inputs=member.noise.acts_on_inputs,
        regulariser=type(member.regulariser) if regularised else None,
        variant=member.regulariser.variant if regularised else "",
        coefficient_names=tuple(_coefficients(member, noisy)),
    )


def dtype_of(members: Sequence[Member]) -> torch.dtype:
    """Return the precision that the members of a population train in, which they share."""
    return torch.float64 if members[0].training.precision == "float64" else torch.float32


def stack_coefficients(members: Sequence[Member]) -> Float[Tensor, "coefficient member"]:
    """Return the coefficients of members of one program, in the order of its `coefficient_names`."""
    return torch.tensor(
        [list(_coefficients(member, _is_noisy(member)).values()) for member in members],
        dtype=dtype_of(members),
    ).T.contiguous()


def own_coefficients(coefficients: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    """Return the coefficients of one group, such as `noise`, under the names that the group gives them."""
    prefix = f"{group}."
    return {
        name.removeprefix(prefix): value for name, value in coefficients.items() if name.startswith(prefix)
    }
