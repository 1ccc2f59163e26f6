"""How modular the graph of a network is under the task's partition, against shuffled graphs.

Inputs and outputs have the modules of the task, and units that to which most of their connections lead (see
`assignment`). A score of such a partition is above chance in any graph, so it is never given alone: a shuffled graph
has its units assigned again. A random partition asks less, whether the units of a module belong together more than
others would; it does not say that the graph is modular.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float64
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from modulab.config.settings import Probes
from modulab.metrics.frame_null import equal_features
from modulab.metrics.graphs.assignment import strongest_modules
from modulab.metrics.graphs.coactivation import rotated_coactivation_graphs
from modulab.metrics.graphs.comparison import compare
from modulab.metrics.graphs.division import SCORES, Division, Score, ScoreName
from modulab.metrics.graphs.graph import Graph
from modulab.metrics.graphs.kinds import KINDS, GraphKind, NullName, dead_nodes, node_modules
from modulab.metrics.graphs.nulls import random_partitions
from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import BATCH_ELEMENTS, Probe
from modulab.networks.base import INPUT, OUTPUT, Network
from modulab.tasks.base import Task

_SECONDS_PER_SHUFFLE = 1.5e-4
_SECONDS_PER_RUN = 5e-7
"""Time of running a network with shuffled weights, for each evaluation point."""
_CHUNK_ELEMENTS = BATCH_ELEMENTS // 8
"""Elements of shuffled graphs that are held at once for a member, at 8 bytes and several copies each."""
_NULL_LABELS: dict[NullName, str] = {
    "layer": "shuffled layers",
    "degree": "shuffles that keep degrees",
    "nonzero": "shuffled nonzero weights",
    "strength": "shuffles that keep strengths",
    "frame": "rotated module axes",
    "partition": "random partitions",
}


class KnownModules(Measure):
    """Scores of the task's partition of one kind of graph: `graph/KIND/SCORE`, and for each null, with the same name
    before them, `NULL_mean`, `NULL_z` and `NULL_p`. Also how many units are dead or isolated, which are left out."""

    graph: GraphKind = Field(description="which weights the edges have")
    scores: list[ScoreName] = Field(min_length=1, description="which scores of the partition are computed")
    nulls: list[NullName] = Field(min_length=1, description="nulls with which each score is compared")
    shuffles: int = Field(ge=2, description="number of shuffled graphs or random partitions for each null")

    @field_validator("scores", "nulls")
    @classmethod
    def _named_once(cls, names: list[str]) -> list[str]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: named more than once. Leave out all but one.")
        return names

    @model_validator(mode="after")
    def _nulls_of_graph(self) -> KnownModules:
        there = KINDS[self.graph].nulls
        others = [null for null in self.nulls if null not in there]
        if others:
            raise ValueError(
                f"nulls={others}: a graph of kind {self.graph} has no such nulls. Choose from {', '.join(there)}."
            )
        return self

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for scores, their nulls and the units left out."""
        of = KINDS[self.graph].label
        found: list[Column] = []
        for name, score in self._taken():
            column = f"graph/{self.graph}/{name}"
            found.append(Column(column, f"{score.label} of {of}"))
            for null in self.nulls:
                text = _NULL_LABELS[null]
                found += [
                    Column(f"{column}/{null}_mean", f"{score.label} of {of}, mean of {text}"),
                    Column(f"{column}/{null}_z", f"{score.label} of {of}, z against {text}"),
                    Column(
                        f"{column}/{null}_p", f"{score.label} of {of}, p against {text}", ends_at_one=True
                    ),
                ]
        found += [
            Column(f"graph/{self.graph}/dead_units", f"Dead units of the graph of {of}"),
            Column(f"graph/{self.graph}/isolated_units", f"Isolated units of the graph of {of}"),
        ]
        return tuple(found)

    def seconds(self, probes: Probes) -> float:
        """Return about how long it takes for a network."""
        running = sum(map(self._runs, self.nulls)) * _SECONDS_PER_RUN * probes.num_samples
        return self.shuffles * (_SECONDS_PER_SHUFFLE * len(self.nulls) + running)

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return why there is no such graph, or no partition of it."""
        missing = super().lacking(network, task) or KINDS[self.graph].lacking(network)
        if missing is not None:
            return missing
        if task.modules == 1:
            return "the task has one module"
        labels = {*task.partition.inputs, *task.partition.outputs}
        if not set(range(task.modules)) <= labels:
            return "not every module of the task has inputs or outputs of its own"
        if "frame" in self.nulls and any(
            equal_features(task.partition, side) is None for side in ("inputs", "outputs")
        ):
            return "its modules differ in their numbers of inputs or outputs"
        return None

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return scores, comparisons and counts."""
        graph = KINDS[self.graph].build(probe)
        partition = probe.task.partition
        known = node_modules(probe.network.network, partition, graph.parts)
        modules = partition.modules
        own = Division(graph, strongest_modules(graph, known, modules), modules)
        values = self._units_left_out(probe, graph)
        found = {name: score.compute(own) for name, score in self._taken()}
        values |= {f"graph/{self.graph}/{name}": value for name, value in found.items()}
        for null in self.nulls:
            drawn = [
                {name: score.compute(each) for name, score in self._taken()}
                for each in self._null_divisions(probe, own, known, null)
            ]
            for name, score in self._taken():
                members = len(found[name])
                scored = torch.cat([each[name].unflatten(0, (members, -1)) for each in drawn], dim=1)
                against = compare(found[name], scored, score.rises)
                column = f"graph/{self.graph}/{name}/{null}"
                values |= {f"{column}_mean": against.mean, f"{column}_z": against.z, f"{column}_p": against.p}
        return values

    def _null_divisions(
        self, probe: Probe, own: Division, known: tuple[int, ...], null: NullName
    ) -> Iterator[Division]:
        """Yield the divisions of a null, a few of each member at a time, those of a member side by side."""
        elements = sum(block.weights[0].numel() for block in own.graph.blocks)
        if self._runs(null):
            elements += own.graph.num_nodes * probe.settings.num_samples
        size = max(1, _CHUNK_ELEMENTS // elements)
        for start in range(0, self.shuffles, size):
            numbers = range(start, min(start + size, self.shuffles))
            probe.tell(f"random graphs, {start + 1} of {self.shuffles} (graph/{self.graph}, {null})")
            if null == "partition":
                repeated = [
                    block.weights.repeat_interleave(len(numbers), dim=0) for block in own.graph.blocks
                ]
                labels = random_partitions(own.graph, own.labels, probe.keys, numbers)
                yield Division(own.graph.with_weights(repeated), labels, own.modules)
                continue
            if null == "frame":
                graph = rotated_coactivation_graphs(probe, numbers, self.shuffles)
            else:
                graph = KINDS[self.graph].shuffled(probe, own.graph, null, numbers)
            yield Division(graph, strongest_modules(graph, known, own.modules), own.modules)

    def _units_left_out(self, probe: Probe, graph: Graph) -> dict[str, Tensor]:
        units = torch.tensor(
            [part.name not in (INPUT, OUTPUT) for part in graph.parts for _ in range(part.size)],
            device=probe.keys.device,
        )
        dead = dead_nodes(probe, graph.parts) & units
        isolated = ~graph.connected() & units & ~dead
        return {
            f"graph/{self.graph}/{name}_units": nodes.double().sum(dim=1)
            for name, nodes in (("dead", dead), ("isolated", isolated))
        }

    def _runs(self, null: NullName) -> bool:
        """Return whether a null is of networks with shuffled weights, which are run."""
        return null not in ("strength", "frame", "partition")

    @property
    def _directed(self) -> bool:
        return KINDS[self.graph].directed

    def _taken(self) -> list[tuple[ScoreName, Score]]:
        return [(name, SCORES[name]) for name in self.scores if self._directed or not SCORES[name].directed]
