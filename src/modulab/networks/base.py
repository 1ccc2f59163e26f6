"""The contract of a network: a layout of parameters, sites where units are active, and a forward pass.

The parameters of one member are one row of a (member, parameter) tensor. A forward pass runs a block of members
together and calls `tap` at each site, where noise, ablation and recording act. A member's results must not depend on
the other members. Activity has the shape (member, unit, batch): with the batch innermost, compiled loops over noise,
activation and gradients run over contiguous samples. Inputs and outputs have the shape (member, batch, feature).

A unit may be active at several positions of a sample, such as those of an image, and a pass may visit a site several
times, as in a recurrent network: see `Site`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.partition import Partition
from modulab.schema import Settings
from modulab.tasks.base import Task

INPUT = "input"
OUTPUT = "output"
"""Used in place of a site's name by edges from the inputs and to the outputs."""

Tap = Callable[[str, Tensor], Tensor]
"""Takes the name of a place in a forward pass and its values (member, unit, batch); returns the values to pass on."""


@dataclass(frozen=True)
class Parameter:
    """A named part of a member's parameters; `is_weight` distinguishes weights of connections from biases and others.

    A part that is not `trained` keeps its initial values; the optimiser and weight decay do not change it.
    """

    name: str
    shape: tuple[int, ...]
    is_weight: bool = True
    trained: bool = True

    @property
    def size(self) -> int:
        """Return the number of its elements."""
        return math.prod(self.shape)


def split_parameters(
    parameters: Float[Tensor, "member parameter"], layout: Sequence[Parameter]
) -> dict[str, Float[Tensor, "member ..."]]:
    """Return the parts of a layout, by name, as views of the parameters."""
    parts: dict[str, Tensor] = {}
    start = 0
    for parameter in layout:
        part = parameters[:, start : start + parameter.size]
        if len(parameter.shape) != 1:
            part = part.unflatten(1, parameter.shape) if parameter.shape else part[:, 0]
        parts[parameter.name] = part
        start += parameter.size
    return parts


@dataclass(frozen=True)
class Site:
    """A named place where units are active.

    At each visit, `tap` receives values of shape (member, unit, batch x positions); the network determines the order
    along the last axis. Recordings concatenate the visits along that axis.
    """

    name: str
    units: int
    positions: int = 1
    """Number of positions in a sample at which each unit is active at a visit: pixels of a channel, or tokens."""
    visits: int = 1
    """Number of visits in a pass: the steps of a recurrent network."""

    @property
    def values(self) -> int:
        """Return the number of values of a sample, over units, positions and visits."""
        return self.units * self.positions * self.visits


def by_visit(tap: Callable[[str, Tensor, int], Tensor]) -> Tap:
    """Return a tap, for one pass, that also says of each call how many of its place came before it."""
    visits: Counter[str] = Counter()

    def count(place: str, values: Tensor) -> Tensor:
        visits[place] += 1
        return tap(place, values, visits[place] - 1)

    return count


def of_visit(recorded: Tensor, values: Tensor, visit: int) -> Tensor:
    """Return the part of something laid out as a recording that belongs to the values of one visit."""
    batch = values.shape[2]
    return recorded[:, :, visit * batch : (visit + 1) * batch]


@dataclass(frozen=True)
class Edges:
    """Weighted connections from the units of one site, or the inputs, to those of another site, or the outputs."""

    source: str
    target: str
    weights: Float[Tensor, "member target_unit source_unit"]


@dataclass(frozen=True)
class Recording:
    """A forward pass: its outputs, and the values at each tapped place, before and after the tap.

    Visits to the same place are concatenated along the last axis.
    """

    outputs: Float[Tensor, "member batch out_features"]
    values: Mapping[str, Float[Tensor, "member _unit _batch"]]
    passed_on: Mapping[str, Float[Tensor, "member _unit _batch"]] = field(default_factory=dict)
    """The values after the tap; empty if there was no tap."""

    def used(self, place: str) -> Float[Tensor, "member _unit _batch"]:
        """Return the values that the pass continued with: those after the tap, if there was one."""
        return self.passed_on.get(place, self.values[place])


class Network(ABC):
    """The structure that members of a population share. Derive a frozen dataclass from it: equal fields, equal network.

    Required are sizes, `layout`, `sites`, `initialise` and `forward`. The other members are optional: without them,
    modulab uses a general implementation, or skips measures that need them.
    """

    in_features: int
    out_features: int

    @property
    @abstractmethod
    def layout(self) -> tuple[Parameter, ...]:
        """Return the parts of a member's parameters, in the order of its row."""

    @property
    @abstractmethod
    def sites(self) -> tuple[Site, ...]:
        """Return the places where units are active, in the order in which a forward pass visits them."""

    @property
    def pre_activations(self) -> Mapping[str, str]:
        """Return, by site, the name of the place at which a pass taps the pre-activations of the site's units.

        Empty by default: such a network has no noise on pre-activations. Otherwise it must contain all sites, in order,
        and `gates` and Jacobians must be those at the values that the tap returns.
        """
        return {}

    @property
    def gate_name(self) -> str | None:
        """Return the place at which a pass taps shares of experts, (member, expert, batch), which sum to 1; or None.

        The last axis may contain several positions of a sample, as at sites.
        """
        return None

    @abstractmethod
    def initialise(
        self, architectures: Sequence[Any], partition: Partition, keys: Int32[Tensor, "member 2"]
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return each member's 0/1 mask and its initial parameters, which depend only on its architecture and key.

        Masked parameters are 0 and stay 0. Parts that are not trained have mask 0, and need not be 0.
        """

    @abstractmethod
    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return every member's outputs; `tap` is called at each visit to a site, and possibly at other places."""

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters of one member."""
        return sum(parameter.size for parameter in self.layout)

    def with_untrained(
        self, parameters: Float[Tensor, "member parameter"], before: Float[Tensor, "member parameter"]
    ) -> Float[Tensor, "member parameter"]:
        """Return the parameters after an update, with the untrained parts as they were before it."""
        if self._is_all_trained:
            return parameters
        pairs = zip(self.layout, self._columns(parameters), self._columns(before), strict=True)
        return torch.cat([new if part.trained else old for part, new, old in pairs], dim=1)

    def trained_parts(
        self, parameters: Float[Tensor, "member parameter"]
    ) -> Float[Tensor, "member _trained_parameter"]:
        """Return the parameters that are trained."""
        if self._is_all_trained:
            return parameters
        pairs = zip(self.layout, self._columns(parameters), strict=True)
        return torch.cat([own for part, own in pairs if part.trained], dim=1)

    @property
    def _is_all_trained(self) -> bool:
        return all(part.trained for part in self.layout)

    def _columns(self, parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters.split([part.size for part in self.layout], dim=1)

    def split(self, parameters: Float[Tensor, "member parameter"]) -> dict[str, Float[Tensor, "member ..."]]:
        """Return the parts of the layout, by name, as views."""
        return split_parameters(parameters, self.layout)

    def record(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Recording:
        """Return a forward pass with the values at each place, before and after `tap`."""
        values: defaultdict[str, list[Tensor]] = defaultdict(list)
        passed_on: defaultdict[str, list[Tensor]] = defaultdict(list)

        def keep(place: str, value: Tensor) -> Tensor:
            values[place].append(value)
            if tap is None:
                return value
            passed_on[place].append(tap(place, value))
            return passed_on[place][-1]

        outputs = self.forward(parameters, inputs, keep)
        return Recording(outputs, _visits_joined(values), _visits_joined(passed_on))

    @property
    def connections(self) -> tuple[tuple[str, str], ...]:
        """Return the source and target of each of `edges`; none by default."""
        return ()

    def edge_weights(
        self, parameters: Float[Tensor, "member parameter"]
    ) -> Sequence[Float[Tensor, "member _target_unit _source_unit"]]:
        """Return the weights of each of `connections`; a network with connections defines both."""
        del parameters
        return ()

    def edges(self, parameters: Float[Tensor, "member parameter"]) -> tuple[Edges, ...]:
        """Return the weighted connections, in the order of `connections`."""
        pairs = zip(self.connections, self.edge_weights(parameters), strict=True)
        return tuple(Edges(source, target, weights) for (source, target), weights in pairs)

    @property
    def layer_connections(self) -> tuple[tuple[str, str], ...]:
        """Return the sources and targets of edges that lead from the inputs through each site to the outputs."""
        return tuple(pairwise([INPUT, *(site.name for site in self.sites), OUTPUT]))

    @property
    def is_layered(self) -> bool:
        """Return whether all `edges` lead from one layer to the next (see `layer_connections`).

        False by default. A layered network also defines `gates` and stages. Its outputs depend on nothing else, and its
        units have one value per sample.
        """
        return False

    def inputs_read(
        self, inputs: Float[Tensor, "member batch in_features"]
    ) -> Float[Tensor, "member source_unit _batch"]:
        """Return the inputs as edges read them: by default as units with one value per sample."""
        return inputs.transpose(1, 2)

    def activity_read(
        self,
        connection: tuple[str, str],
        inputs: Float[Tensor, "member batch in_features"],
        recording: Recording,
    ) -> Float[Tensor, "member source_unit _batch"]:
        """Return the values that the edges of a connection read in a recorded pass, before the tap changed them.

        By default these are the values at all positions and visits of the source.
        """
        source, _ = connection
        return self.inputs_read(inputs) if source == INPUT else recording.values[source]

    def gates(self, recording: Recording) -> dict[str, Float[Tensor, "member _unit _batch"]]:
        """Return, for each site that is a target of edges, the derivative of its activity by its input sum.

        A network with edges needs it: paths through a network are products of weights and gates.
        """
        del recording
        return {}

    def output_jacobians(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        recording: Recording,
    ) -> Iterator[tuple[str, Float[Tensor, "member out_features unit _batch"]]]:
        """Yield the derivative of the outputs with respect to each site's activity, beginning with the last site.

        Derivatives are those of the recorded pass: what its tap added at each site is added again, as a constant. The
        default implementation computes one vector-Jacobian product per output, for all sites at once.
        """
        zeros = {site.name: torch.zeros_like(recording.values[site.name]) for site in self.sites}

        def outputs_of(added: dict[str, Tensor]) -> Tensor:
            def add(place: str, value: Tensor, visit: int) -> Tensor:
                if place in recording.passed_on:
                    change = recording.passed_on[place] - recording.values[place]
                    value = value + of_visit(change, value, visit)
                return value + of_visit(added[place], value, visit) if place in added else value

            return self.forward(parameters, inputs, by_visit(add))

        rows = _gradients_of_outputs(outputs_of, zeros)
        for site in reversed(self.sites):
            yield site.name, torch.stack([row[site.name] for row in rows], dim=1)

    def input_jacobian(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
    ) -> Float[Tensor, "member batch out_features in_features"]:
        """Return the derivative of each output with respect to each input, at every point."""

        def outputs_of(seen: Tensor) -> Tensor:
            return self.forward(parameters, seen)

        return torch.stack(_gradients_of_outputs(outputs_of, inputs), dim=2)

    @property
    def num_stages(self) -> int:
        """Return the number of stages into which a pass can be divided: stage 0 reads the inputs, stage k site k - 1.

        A network that cannot be divided has one stage, which reads the inputs.
        """
        return 1

    def stage_sums(
        self,
        parameters: Float[Tensor, "member parameter"],
        stage: int,
        values: Float[Tensor, "member source_unit batch"],
        biased: bool = True,
    ) -> Float[Tensor, "member target_unit batch"]:
        """Return a stage's affine map of the values that it reads or, unless `biased`, only its linear part."""
        del parameters, biased
        assert stage == 0
        return values

    def recorded_sums(
        self,
        recording: Recording,
        stage: int,
        inputs: Float[Tensor, "member batch in_features"],
    ) -> Float[Tensor, "member target_unit batch"]:
        """Return what a stage's sums were in a recorded pass."""
        del recording
        assert stage == 0
        return inputs.transpose(1, 2)

    def run_from(
        self,
        parameters: Float[Tensor, "member parameter"],
        stage: int,
        sums: Float[Tensor, "member target_unit batch"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return the outputs that follow from `stage_sums` of a stage; `tap` is called at the sites from there on."""
        assert stage == 0
        return self.forward(parameters, sums.transpose(1, 2), tap)

    @property
    def input_weights(self) -> tuple[str, ...]:
        """Return the names of all weights that read the inputs, each as a matrix over all of them; none by default.

        A network that states them can take a rotation of the inputs into its parameters, as task.mixing needs.
        """
        return ()

    def check_batch(self, samples: int) -> None:
        """Raise ConfigError if a batch of this many samples cannot be computed as members need it.

        Other people's modules are tried here with the sizes of batches that training and measuring take.
        """
        del samples

    @property
    def turns_inputs(self) -> bool:
        """Return whether `turn_inputs` can take a rotation of the inputs into the parameters."""
        return bool(self.input_weights)

    def turn_inputs(
        self,
        parameters: Float[Tensor, "member parameter"],
        rotation: Float[Tensor, "in_features in_features"],
    ) -> Float[Tensor, "member parameter"]:
        """Return the parameters with which the network does on x what it does on Qx with those given.

        Each weight W that reads the inputs becomes W Q. Only for networks with `turns_inputs`.
        """
        turned = rotation.expand(len(parameters), -1, -1)
        parts = [
            torch.bmm(part, turned) if name in self.input_weights else part
            for name, part in self.split(parameters).items()
        ]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    @property
    def unmeasured(self) -> str | None:
        """Return why the network cannot be measured on its task's points, or None if it can."""
        return None

    @property
    def total_units(self) -> int:
        """Return the number of units at all sites."""
        return sum(site.units for site in self.sites)

    @property
    def total_values(self) -> int:
        """Return the number of values of a sample at all sites."""
        return sum(site.values for site in self.sites)

    @property
    def step_units(self) -> int:
        """Return the size to which the time of a step is proportional: values of a sample at all sites, or inputs."""
        return max(self.total_values, self.in_features)

    @property
    def step_products(self) -> int:
        """Return approximately how many products of weights and values a pass of one sample computes."""
        weights = sum(part.size for part in self.layout if part.is_weight)
        values, units = (sum(getattr(site, of) for site in self.sites) for of in ("values", "units"))
        return weights * max(1, values // max(1, units))

    @property
    def widest(self) -> int:
        """Return the largest number of values of a sample at a visit to a site, or of inputs."""
        return max((*(site.units * site.positions for site in self.sites), self.in_features))

    @property
    def activation_cost(self) -> int:
        """Return how many buffers of a site's activity an eager step needs for its nonlinearity and derivative."""
        return 0


def _visits_joined(values: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    return {
        place: visits[0] if len(visits) == 1 else torch.cat(list(visits), dim=2)
        for place, visits in values.items()
    }


def _gradients_of_outputs(outputs_of: Callable[[Any], Tensor], point: Any) -> list[Any]:
    """Return, for each output, the gradient of its sum over members and samples by `point`, a tensor or several.

    Members and samples are independent, so these are the derivatives member by member and sample by sample.
    """
    vjp: Any = torch.func.vjp
    outputs, pull_back = vjp(outputs_of, point)
    numbers = torch.arange(outputs.shape[2], device=outputs.device)
    nothing = torch.zeros_like(outputs)
    return [pull_back(nothing + (numbers == output))[0] for output in range(outputs.shape[2])]


class Architecture(Settings):
    """The settings of a network. The class that `architecture._target_` names is derived from this class."""

    name: str = Field(description="name in tables and figures")

    @property
    def structure(self) -> tuple[object, ...]:
        """Return what members of a population must share in addition to structural settings; nothing by default.

        For settings that have one value per member, but determine sizes in combination with others.
        """
        return ()

    @abstractmethod
    def network(self, task: Task) -> Network:
        """Return the network for a task; it is equal for members with equal structural settings and `structure`.

        Raises: ConfigError if the settings do not fit the task.
        """

    @property
    def points_read(self) -> int | None:
        """Return the maximum number of training points that `informed` reads; None, the default, if it is not used."""
        return None

    def informed(
        self,
        network: Network,
        parameters: Float[Tensor, " parameter"],
        task: Task,
        points: Float[Tensor, "point feature"],
    ) -> Float[Tensor, " parameter"]:
        """Return a member's initial parameters, from those of `Network.initialise`, its task and its first points.

        Called if `points_read` is a number (it may be 0), for one member at a time, so results do not depend on
        packing. Each point consists of inputs as the network sees them, and targets.
        """
        del network, task, points
        return parameters


@dataclass(frozen=True)
class NetworkPopulation:
    """Members with the same network: the network, and the parameters of each member."""

    network: Network
    parameters: Float[Tensor, "member parameter"]

    @property
    def num_members(self) -> int:
        """Return the length of the member axis."""
        return len(self.parameters)

    def select(self, members: slice | Tensor) -> NetworkPopulation:
        """Return some of the members."""
        return NetworkPopulation(self.network, self.parameters[members])

    def repeated(self, repeats: int) -> NetworkPopulation:
        """Return each member `repeats` times, one after the other."""
        return NetworkPopulation(self.network, self.parameters.repeat_interleave(repeats, dim=0))

    def split(self) -> dict[str, Float[Tensor, "member ..."]]:
        """Return the parts of the parameters, by the names of the network's layout, as views."""
        return self.network.split(self.parameters)

    def edges(self) -> tuple[Edges, ...]:
        """Return the weighted connections; none for a network without edges."""
        return self.network.edges(self.parameters)

    def forward(
        self, inputs: Float[Tensor, "member batch in_features"], tap: Tap | None = None
    ) -> Float[Tensor, "member batch out_features"]:
        """Return every member's outputs."""
        return self.network.forward(self.parameters, inputs, tap)

    def record(self, inputs: Float[Tensor, "member batch in_features"], tap: Tap | None = None) -> Recording:
        """Return every member's outputs, and the values at each place of the forward pass."""
        return self.network.record(self.parameters, inputs, tap)
