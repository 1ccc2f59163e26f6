"""The argument of every measure: networks, and the points at which they are evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import pairwise
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from modulab.config.settings import Probes
from modulab.foreign import own_draws_only
from modulab.measure_names import stands_for
from modulab.metrics.native import NO_KERNELS, Kernels
from modulab.metrics.row_functions import Outputs
from modulab.networks.base import Network, NetworkPopulation, Recording
from modulab.streams import Stream, fold_in
from modulab.tasks.base import (
    Region,
    Samples,
    Task,
    checked_samples,
    draw_points,
    encode_points,
    mixing_matrix,
)

BATCH_ELEMENTS = 1 << 18
"""Elements per member that a tensor over evaluation points may hold: 1 MiB. Points are taken a chunk at a time to
keep it, by a rule that sees one member's sizes only, so sums do not depend on how many members there are."""

BLOCK_BYTES = 64 << 20
"""Default memory of a block of members measured together; small enough for a CPU's caches."""


_CACHED_ELEMENTS = 1 << 16
"""Elements of a tensor over the evaluation points of a few members that stays in a processor's cache from one operation
to the next: 256 KiB."""

_LARGEST_CACHE = 1 << 20
"""Elements that are written and then read for some members: 4 MiB, which a processor's largest cache holds."""

Kept = TypeVar("Kept")
Tell = Callable[[str], None]
"""Receives the progress of a long measure."""


def tell_nobody(words: str) -> None:
    """Ignore the progress of a measure."""
    del words


@dataclass(frozen=True)
class Asked:
    """The values that are measured repeatedly during training, and the points of evaluation, which are kept."""

    values: tuple[str, ...]
    """Names or patterns of the values that are asked for."""
    most_bytes: int = 64 << 20
    _kept: dict[Any, Samples] = field(default_factory=dict, repr=False, compare=False)

    def samples(self, task: Task, keys: Int32[Tensor, "member 2"], num_samples: int) -> Samples:
        """Return `evaluation_samples` of full support, kept for the next time as long as there is room."""
        name = (task, num_samples, keys.device, keys.cpu().numpy().tobytes())
        if name in self._kept:
            return self._kept[name]
        drawn = evaluation_samples(task, keys, num_samples, "full")
        if _bytes_of(drawn) + sum(map(_bytes_of, list(self._kept.values()))) <= self.most_bytes:
            self._kept[name] = drawn
        return drawn


def _bytes_of(samples: Samples) -> int:
    return samples.inputs.nbytes + samples.targets.nbytes


@dataclass(frozen=True)
class Probe:
    """A block of members that share a task: their networks, and the points at which they are evaluated."""

    task: Task
    settings: Probes
    keys: Int32[Tensor, "member 2"]
    """The members' own keys, from `streams.member_keys`."""
    network: NetworkPopulation
    """The networks in module coordinates, which read unmixed inputs."""
    seen_network: NetworkPopulation
    """The networks as trained, which read mixed inputs Qx; equal to `network` without mixing."""
    rotation: Float[Tensor, "in_features in_features"] | None
    """Q, or None without mixing."""
    samples: Samples
    """Evaluation points of `full` support, test split, in the task's code but unmixed."""
    mask: Float[Tensor, "member parameter"]
    """1 for every parameter of `seen_network` that exists, 0 for masked ones."""
    asked: Asked | None = None
    """The values that are needed; None for all."""
    tell: Tell = field(default=tell_nobody, repr=False, compare=False)
    """A measure that takes seconds may report its progress here."""
    kernels: Kernels = field(default=NO_KERNELS, repr=False, compare=False)
    """Native code for parts of measures, if it is used."""
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, compute: Callable[..., Kept], *arguments: Any) -> Kept:
        """Return `compute(self, *arguments)`, computed only once: measures share costly results."""
        key = (compute, *arguments)
        if key not in self._kept:
            self._kept[key] = compute(self, *arguments)
        return self._kept[key]

    def of(self, rows: slice) -> Probe:
        """Return a probe of some members, which shares nothing that was computed."""
        samples = Samples(self.samples.inputs[rows], self.samples.targets[rows])
        return replace(
            self, keys=self.keys[rows], network=self.network.select(rows), samples=samples, mask=self.mask[rows],
            seen_network=self.seen_network.select(rows), _kept={},
        )  # fmt: skip

    @property
    def clean(self) -> Recording:
        """Return the forward pass of `network` on `samples`, made when it is first asked for."""
        return self.once(_recorded)

    @property
    def outputs(self) -> Float[Tensor, "member batch out_features"]:
        """Return the outputs of `network` on `samples`, which take less than the whole pass if there is native code."""
        return self.once(_outputs)

    def versions(self) -> dict[str, int]:
        """Return how often each tensor that measures share was changed in place, by its name."""
        shared = {
            "network.parameters": self.network.parameters, "seen_network.parameters": self.seen_network.parameters,
            "mask": self.mask, "samples.inputs": self.samples.inputs, "samples.targets": self.samples.targets,
        }  # fmt: skip
        for kept in self._kept.values():
            if isinstance(kept, Recording):
                shared |= {"clean.outputs": kept.outputs}
                shared |= {f"clean.values['{name}']": values for name, values in kept.values.items()}
        return {name: tensor._version for name, tensor in shared.items()}

    def asks(self, name: str) -> bool:
        """Return whether a value is needed; a measure may omit others to save time."""
        return self.asked is None or any(stands_for(pattern, name) for pattern in self.asked.values)

    def activities(self) -> list[Float[Tensor, "member _unit _batch"]]:
        """Return the clean activity at each site, in the order of the network's sites."""
        return [self.clean.values[site.name] for site in self.network.network.sites]


def _recorded(probe: Probe) -> Recording:
    return probe.network.record(probe.samples.inputs)


def _outputs(probe: Probe) -> Tensor:
    inputs = probe.samples.inputs
    run = native_pass(probe.network, inputs, probe.kernels)
    return probe.clean.outputs if run is None else run(inputs)


def few_members(members: int, most: int, least: int = 1) -> list[slice]:
    """Return all members in about equal parts of `most` members, or of `least` if that is more."""
    count = max(1, members // max(least, most))
    ends = [members * part // count for part in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def rows_in_cache(probe: Probe, times: int = 1, least: int = 1) -> list[slice]:
    """Return so many members at a time, `least` or more, that a cache holds their activity so many times."""
    values = probe.samples.inputs.shape[1] * sum(site.values for site in probe.network.network.sites)
    return few_in_cache(len(probe.keys), times * values, least)


def few_in_cache(members: int, values: int, least: int = 1) -> list[slice]:
    """Return so many members at a time, `least` or more, that a cache holds so many values of each."""
    return few_members(members, _LARGEST_CACHE // max(1, values), least)


def outputs_in_parts(
    network: Network, members: int, points: int, outputs_of: Callable[[slice], Tensor]
) -> Float[Tensor, "member batch out_features"]:
    """Return the outputs of all members, which `outputs_of` gives for some, so many at a time as a cache can hold.

    Never of one alone: a batched product of one matrix takes another kernel, which rounds otherwise, than one of many.
    """
    widest = max(network.in_features, network.out_features, *(site.values for site in network.sites))
    parts = [
        outputs_of(rows) for rows in few_members(members, _CACHED_ELEMENTS // (points * widest), least=2)
    ]
    # Most networks lay out outputs like this, and sums over points keep their order.
    if parts[0].transpose(1, 2).is_contiguous():
        return torch.cat([part.transpose(1, 2) for part in parts]).transpose(1, 2)
    return torch.cat(parts)


def outputs_on(
    network: NetworkPopulation,
    inputs: Float[Tensor, "member batch in_features"],
    kernels: Kernels = NO_KERNELS,
) -> Float[Tensor, "member batch out_features"]:
    """Return every member's outputs, as `NetworkPopulation.forward` does, by native code where `kernels` have it."""
    run = native_pass(network, inputs, kernels)
    if run is not None:
        return run(inputs)
    return outputs_in_parts(
        network.network, len(inputs), inputs.shape[1], lambda rows: network.select(rows).forward(inputs[rows])
    )


def native_pass(
    network: NetworkPopulation, inputs: Float[Tensor, "member batch in_features"], kernels: Kernels
) -> Callable[[Tensor], Tensor] | None:
    """Return every member's outputs by inputs of these shapes, by native code; None if there is none."""
    run = kernels.compiled(Outputs(network.network), network.parameters, inputs.transpose(1, 2))
    if run is None:
        return None
    return lambda points: run(network.parameters, points.transpose(1, 2)).transpose(1, 2)


class _Draw(IntEnum):
    """Separates the random streams of regions. Part of every result: never change one."""

    FULL = 0
    TRAIN = 1
    WITHHELD = 2


_DRAWS: dict[Region, _Draw] = {"full": _Draw.FULL, "train": _Draw.TRAIN, "withheld": _Draw.WITHHELD}


def in_module_coordinates(
    network: NetworkPopulation, rotation: Float[Tensor, "in_features in_features"] | None
) -> NetworkPopulation:
    """Return the networks that do on x what those given do on Qx; only for networks with `turns_inputs`."""
    if rotation is None:
        return network
    return NetworkPopulation(network.network, network.network.turn_inputs(network.parameters, rotation))


def evaluation_samples(
    task: Task,
    keys: Int32[Tensor, "member 2"],
    num_samples: int,
    region: Region,
    scales: Float[Tensor, " module"] | None = None,
) -> Samples:
    """Return each member's evaluation points of a region as `Probe.network` takes them: encoded, unmixed."""
    drawn = drawn_samples(task, keys, num_samples, region, scales)
    encoded = encode_points(task, drawn.inputs)
    return drawn if encoded is drawn.inputs else Samples(_batch_innermost(encoded).float(), drawn.targets)


def drawn_samples(
    task: Task,
    keys: Int32[Tensor, "member 2"],
    num_samples: int,
    region: Region,
    scales: Float[Tensor, " module"] | None = None,
) -> Samples:
    """Return each member's evaluation points of a region, test split, as `Task.draw` gives them.

    The points under `scales` are those without, stretched: differences between ranges are not sampling error.
    """
    region_keys = fold_in(fold_in(keys, Stream.EVALUATION_DATA), int(_DRAWS[region]))
    counters = torch.arange(num_samples, dtype=torch.int32, device=keys.device).expand(len(keys), -1)
    samples = draw_points(task, region_keys, counters, region, "test", scales)
    return Samples(_batch_innermost(samples.inputs).float(), _batch_innermost(samples.targets).float())


def widened_samples(probe: Probe, scales: Float[Tensor, " module"]) -> Samples:
    """Return `evaluation_samples` of full support under `scales`, from the probe's own points if the task can."""
    task, samples = probe.task, probe.samples
    with own_draws_only(task):
        widened = task.widened(samples, scales)
    if widened is None:
        return evaluation_samples(task, probe.keys, samples.inputs.shape[1], "full", scales)
    checked = checked_samples(widened, samples.inputs.shape[:2], task, "widened")
    return Samples(_batch_innermost(checked.inputs).float(), _batch_innermost(checked.targets).float())


def _batch_innermost(values: Tensor) -> Tensor:
    """Return values laid out in memory as networks read and write them, which is three times as fast."""
    return values.transpose(1, 2).contiguous().transpose(1, 2)


def make_probe(
    task: Task,
    network: NetworkPopulation,
    keys: Int32[Tensor, "member 2"],
    settings: Probes,
    mask: Float[Tensor, "member parameter"] | None = None,
    tell: Tell = tell_nobody,
    asked: Asked | None = None,
    kernels: Kernels = NO_KERNELS,
) -> Probe:
    """Return a probe of networks as trained, which see mixed inputs where the task mixes; no mask: dense ones."""
    rotation = mixing_matrix(task).to(keys.device) if task.mixing else None
    unmixed = in_module_coordinates(network, rotation)
    if asked is None:
        samples = evaluation_samples(task, keys, settings.num_samples, "full")
    else:
        samples = asked.samples(task, keys, settings.num_samples)
    if mask is None:
        mask = torch.ones_like(network.parameters)
    return Probe(task, settings, keys, unmixed, network, rotation, samples, mask, asked, tell, kernels)


def members_at_once(
    network: Network, settings: Probes, block_bytes: int = BLOCK_BYTES, kernels: Kernels = NO_KERNELS
) -> int:
    """Return how many members are measured together in about `block_bytes`, at least two."""
    return max(2, int(block_bytes * kernels.members_to_torchs / bytes_per_member(network, settings)))


def bytes_per_member(network: Network, settings: Probes) -> int:
    """Return about how much memory measuring one more member takes at its peak.

    The evaluation points' inputs, outputs and activities are held four times at most, draws of noise and gates among
    them, noise on the widest layer needs 40 bytes per element, weight noise `repeats` copies of the network, and sums
    over points or over units silenced four tensors of as many elements as there are, or `BATCH_ELEMENTS`.
    """
    values = [site.values for site in network.sites]
    features = network.in_features + sum(values) + network.out_features
    widest = max((*values, network.in_features))
    widest_written = max((*values[1:], network.out_features))
    per_point = 16 * features + 40 * widest
    return (
        settings.num_samples * per_point
        + settings.repeats * 20 * network.num_parameters
        + 4 * 4 * min(BATCH_ELEMENTS, settings.num_samples * widest * widest_written)
    )
