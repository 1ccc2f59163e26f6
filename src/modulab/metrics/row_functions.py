"""Row functions: passes, draws, derivatives and errors, from which native code can be generated.

`metrics.native.RowFunction` says what they must be. Points lie along the last axis. They are not in the modules of the
measures, because the name of a compiled library depends on the source code of all modules that its function imports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from modulab.losses import Loss
from modulab.networks.base import Network, Tap, by_visit
from modulab.partition import Partition
from modulab.streams import normals


@dataclass(frozen=True)
class Normals:
    """Standard normal draws of `streams.normals`."""

    rows: int
    columns: int

    def __call__(self, keys: Int32[Tensor, "row 2"]) -> Float[Tensor, "row rows columns"]:
        """Return a matrix of draws for each key."""
        return normals(keys, self.rows, self.columns)


@dataclass(frozen=True)
class Outputs:
    """The outputs of a clean pass."""

    network: Network

    def __call__(
        self, parameters: Float[Tensor, "row parameter"], inputs: Float[Tensor, "row in_features batch"]
    ) -> Float[Tensor, "row out_features batch"]:
        """Return outputs; both they and inputs have points along the last axis."""
        return self.network.forward(parameters, inputs.transpose(1, 2)).transpose(1, 2)


@dataclass(frozen=True)
class OutputsFrom:
    """The outputs of a pass in which sites, each visited once, have other activity."""

    network: Network
    sites: tuple[str, ...]

    def __call__(
        self,
        parameters: Float[Tensor, "row parameter"],
        inputs: Float[Tensor, "row in_features batch"],
        *activities: Float[Tensor, "row _unit _batch"],
    ) -> Float[Tensor, "row out_features batch"]:
        """Return outputs where the sites have these activities."""
        given = _given(self.sites, activities)
        return self.network.forward(parameters, inputs.transpose(1, 2), given).transpose(1, 2)


@dataclass(frozen=True)
class SiteActivity:
    """The activity at one site of a pass in which sites before it, each visited once, have other activity."""

    network: Network
    site: str
    before: tuple[str, ...] = ()

    def __call__(
        self,
        parameters: Float[Tensor, "row parameter"],
        inputs: Float[Tensor, "row in_features batch"],
        *activities: Float[Tensor, "row _unit _batch"],
    ) -> Float[Tensor, "row _unit _batch"]:
        """Return activity as `Network.record` keeps it, where the sites before have these activities."""
        given = _given(self.before, activities)
        return self.network.record(parameters, inputs.transpose(1, 2), given).values[self.site]


def _given(sites: Sequence[str], activities: Sequence[Tensor]) -> Tap:
    """Return a tap that gives activities to sites, so what would compute them is left out of native code."""
    own = dict(zip(sites, activities, strict=True))
    return own.get


@dataclass(frozen=True)
class SilencedOutputs:
    """The outputs of a pass in which some units are silent."""

    network: Network

    def __call__(
        self,
        parameters: Float[Tensor, "row parameter"],
        inputs: Float[Tensor, "row in_features batch"],
        kept: Float[Tensor, "row unit"],
    ) -> Float[Tensor, "row out_features batch"]:
        """Return outputs where activity is multiplied by `kept`: 1 or 0 for each unit, site after site."""
        sites = self.network.sites
        parts = kept.split([site.units for site in sites], dim=1)
        own = dict(zip((site.name for site in sites), parts, strict=True))

        def silence(place: str, values: Tensor) -> Tensor:
            return values * own[place][:, :, None] if place in own else values

        return self.network.forward(parameters, inputs.transpose(1, 2), silence).transpose(1, 2)


def sums_less_unit(
    sums: Float[Tensor, "... target_unit batch"],
    weights: Float[Tensor, "... target_unit"],
    activity: Float[Tensor, "... batch"],
) -> Float[Tensor, "... target_unit batch"]:
    """Return sums without what one unit adds to them: its activity times the weights by which it is read."""
    return sums - weights[..., :, None] * activity[..., None, :]


@dataclass(frozen=True)
class OutputsLessUnit:
    """The outputs of a layered network from the sums of one stage, less what one unit of the layer before adds."""

    network: Network
    stage: int

    def __call__(
        self,
        parameters: Float[Tensor, "row parameter"],
        sums: Float[Tensor, "row _unit batch"],
        weights: Float[Tensor, "row _unit"],
        activity: Float[Tensor, "row batch"],
    ) -> Float[Tensor, "row out_features batch"]:
        """Return outputs; `weights` are those by which the stage reads the unit."""
        left = sums_less_unit(sums, weights, activity)
        return self.network.run_from(parameters, self.stage, left).transpose(1, 2)


@dataclass(frozen=True)
class UnitActivity:
    """How active each unit is, site after site."""

    network: Network

    def __call__(
        self, parameters: Float[Tensor, "row parameter"], inputs: Float[Tensor, "row in_features batch"]
    ) -> Float[Tensor, "row two unit"]:
        """Return `activity_of_units`."""
        recording = self.network.record(parameters, inputs.transpose(1, 2))
        activities = [recording.values[site.name] for site in self.network.sites]
        return activity_of_units(activities, torch.Tensor.mean)


SPEAKS_ABOVE = 1e-3
"""A unit is active on an input where |a| exceeds this share of its layer's mean |a|. Exactly zero activity, which
would do for relu, never occurs in a softplus or sigmoid unit however silent; a share, not a level, because a relu
layer's scale is arbitrary."""


def activity_of_units(
    activities: Sequence[Float[Tensor, "member _unit _batch"]], mean: Callable[[Tensor, int], Tensor]
) -> Float[Tensor, "member two unit"]:
    """Return each unit's mean |a|, and the share of inputs on which it is active, site after site.

    `mean` takes means along an axis.
    """
    means: list[Tensor] = []
    shares: list[Tensor] = []
    for activity in activities:
        magnitude = activity.abs()
        means.append(mean(magnitude, 2))
        threshold = SPEAKS_ABOVE * mean(means[-1], 1)
        shares.append((magnitude > threshold[:, None, None]).float().mean(dim=2))
    return torch.stack([torch.cat(means, dim=1), torch.cat(shares, dim=1)], dim=1)


@dataclass(frozen=True)
class RisesWithoutUnits:
    """How much each module's loss rises when one unit of the last site is silenced, by a loss's closed form."""

    network: Network
    loss: Loss
    partition: Partition

    def __call__(
        self,
        parameters: Float[Tensor, "row parameter"],
        inputs: Float[Tensor, "row in_features batch"],
        targets: Float[Tensor, "row target batch"],
    ) -> Float[Tensor, "row _unit module"]:
        """Return `Loss.rises_without_units`, only of losses that define it."""
        recording = self.network.record(parameters, inputs.transpose(1, 2))
        rises = self.loss.rises_without_units(
            self.network.edges(parameters)[-1].weights,
            recording.values[self.network.sites[-1].name],
            recording.outputs,
            targets.transpose(1, 2),
            self.partition,
        )
        assert rises is not None
        return rises


@dataclass(frozen=True)
class AbsoluteDerivatives:
    """Sums over points of the absolute derivative by each input of one output, or of a weighted sum of outputs."""

    network: Network

    def __call__(
        self,
        parameters: Float[Tensor, "row parameter"],
        inputs: Float[Tensor, "row in_features batch"],
        weights: Float[Tensor, "row out_features"],
    ) -> Float[Tensor, "row in_features"]:
        """Return sum_x |d(w . y) / dx|, by one product with the transposed Jacobian."""

        def outputs_of(seen: Tensor) -> Tensor:
            return self.network.forward(parameters, seen)

        vjp: Any = torch.func.vjp
        outputs, pull_back = vjp(outputs_of, inputs.transpose(1, 2))
        [gradient] = pull_back(torch.zeros_like(outputs) + weights[:, None, :])
        return gradient.abs().sum(dim=1)


@dataclass(frozen=True)
class ModuleErrors:
    """Each module's error, or its loss, from outputs."""

    loss: Loss
    partition: Partition
    of_loss: bool = False

    def __call__(
        self, outputs: Float[Tensor, "row out_features batch"], targets: Float[Tensor, "row target batch"]
    ) -> Float[Tensor, "row module"]:
        """Return `Loss.errors`, or `Loss.by_module`, of points along the last axis."""
        judge = self.loss.by_module if self.of_loss else self.loss.errors
        return judge(outputs.transpose(1, 2), targets.transpose(1, 2), self.partition)


class ActivityNoise(IntEnum):
    """Keeps apart the draws of perturbations of activity. Part of every result: never change or reuse one."""

    GAUSSIAN = 0
    POISSON = 1
    MULTIPLICATIVE = 2
    POISSON_COUNTS = 3


def _root_of_magnitude(activity: Tensor) -> Tensor:
    """Return the root of |a|. torch takes twenty times as long for roots of 0, which silent units have."""
    magnitude = activity.abs()
    return magnitude.sign() * magnitude.clamp_(min=torch.finfo(torch.float32).tiny).sqrt_()


_DEVIATIONS: dict[ActivityNoise, Callable[[Tensor], Tensor | float]] = {
    ActivityNoise.GAUSSIAN: lambda _: 1.0,
    ActivityNoise.POISSON: _root_of_magnitude,
    ActivityNoise.MULTIPLICATIVE: torch.abs,
}
"""Standard deviations of noise of level 1: the roots of `noise.relative_variance` of each law."""


def unit_noise(kind: ActivityNoise, activity: Tensor, draws: Tensor) -> Tensor:
    """Return what noise of one law and of level 1 adds to an activity."""
    return _DEVIATIONS[kind](activity) * draws


@dataclass(frozen=True)
class NoisyOutputs:
    """The outputs of a pass with noise of one law at every site, as a row function."""

    network: Network
    kind: ActivityNoise

    def __call__(
        self,
        parameters: Float[Tensor, "row parameter"],
        inputs: Float[Tensor, "row in_features batch"],
        levels: Float[Tensor, "row site"],
        *draws: Float[Tensor, "row _visit _unit _batch"],
    ) -> Float[Tensor, "row out_features batch"]:
        """Return outputs where each activity is a + level s(a) draw, s the deviation of the law at level 1."""
        sites = self.network.sites
        own = {
            site.name: (level[:, None, None], drawn)
            for site, level, drawn in zip(sites, levels.unbind(dim=1), draws, strict=True)
        }

        def add_noise(place: str, values: Tensor, visit: int) -> Tensor:
            if place not in own:
                return values
            level, drawn = own[place]
            return values + level * unit_noise(self.kind, values, drawn[:, visit])

        return self.network.forward(parameters, inputs.transpose(1, 2), by_visit(add_noise)).transpose(1, 2)


@dataclass(frozen=True)
class PathStrengths:
    """Sums over points of the strength of all paths from one layer to another, as a row function.

    Layers count from 0, the inputs, to the number of weight matrices, the outputs.
    """

    network: Network
    first: int
    last: int

    def __call__(
        self, parameters: Float[Tensor, "row parameter"], inputs: Float[Tensor, "row in_features batch"]
    ) -> Float[Tensor, "row _last_unit _first_unit"]:
        """Return sum_x |W_last| D_(last-1)(x) ... D_(first+1)(x) |W_(first+1)|."""
        network, (first, last) = self.network, (self.first, self.last)
        weights = [edges.weights.abs() for edges in network.edges(parameters)]
        gates = network.gates(network.record(parameters, inputs.transpose(1, 2)))
        between = [gates[site.name] for site in network.sites[first : last - 1]]
        return summed_product(weights[first:last], between, inputs.shape[2])


@dataclass(frozen=True)
class Gating:
    """Sums over points of the absolute gates of a hidden layer, as a row function."""

    network: Network
    site: int

    def __call__(
        self, parameters: Float[Tensor, "row parameter"], inputs: Float[Tensor, "row in_features batch"]
    ) -> Float[Tensor, "row _unit"]:
        """Return sum_x |activation'(z)|."""
        gates = self.network.gates(self.network.record(parameters, inputs.transpose(1, 2)))
        return gates[self.network.sites[self.site].name].abs().sum(dim=2)


@dataclass(frozen=True)
class HiddenPathStrengths:
    """Sums over points of the strength of paths between hidden layers, as a row function."""

    network: Network

    def __call__(
        self, parameters: Float[Tensor, "row parameter"], inputs: Float[Tensor, "row in_features batch"]
    ) -> Float[Tensor, "row ..."]:
        """Return sum_x D_(L-1)(x) |W_(L-1)| ... |W_2| D_1(x)."""
        network = self.network
        gates = network.gates(network.record(parameters, inputs.transpose(1, 2)))
        middle = [edges.weights.abs() for edges in network.edges(parameters)][1:-1]
        return hidden_path_sums(middle, [gates[site.name] for site in network.sites])


def hidden_path_sums(middle: Sequence[Tensor], gates: Sequence[Tensor]) -> Tensor:
    """Return the sum over points; `middle` are the absolute weights between hidden layers."""
    begin, end = gates[0].abs(), gates[-1].abs()
    if not middle:
        return begin.sum(dim=2)
    if len(middle) == 1:
        return middle[0] * torch.bmm(end, begin.transpose(1, 2))
    between = products(middle, [gate.abs() for gate in gates[1:-1]])
    ends = end.transpose(1, 2)[:, :, :, None] * begin.transpose(1, 2)[:, :, None, :]
    return (between * ends).sum(dim=1)


def products(weights: Sequence[Tensor], gates: Sequence[Tensor]) -> Float[Tensor, "member _batch row column"]:
    """Return W_L D_(L-1) ... D_1 W_1 for each point: (member, batch, rows, columns)."""
    product = weights[-1][:, None]
    for weight, gate in zip(reversed(weights[:-1]), reversed(gates), strict=True):
        gated = product * gate.transpose(1, 2)[:, :, None, :]
        product = torch.bmm(gated.flatten(1, 2), weight).unflatten(1, gated.shape[1:3])
    return product


def summed_product(weights: Sequence[Tensor], gates: Sequence[Tensor], points: int) -> Tensor:
    """Return the sum over points of W_L |D_(L-1)| ... |D_1| W_1; points are summed before the last product.

    Each point has a matrix if there are two hidden layers or more. Its rows are the units of that end which has fewer.
    """
    if len(gates) > 1 and weights[0].shape[2] < weights[-1].shape[1]:
        turned = [weight.transpose(1, 2) for weight in reversed(weights)]
        return summed_product(turned, gates[::-1], points).transpose(1, 2)
    if not gates:
        return weights[0] * points
    first = gates[0].abs()
    if len(gates) == 1:
        return torch.bmm(weights[1] * first.sum(dim=2)[:, None, :], weights[0])
    product = products(weights[1:], [gate.abs() for gate in gates[1:]])
    summed = (product * first.transpose(1, 2)[:, :, None, :]).sum(dim=1)
    return torch.bmm(summed, weights[0])
