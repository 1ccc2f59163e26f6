"""Graphs of how inputs, units and outputs vary together, and of how they would in other coordinates.

An edge weighs |correlation| over evaluation points; a network needs no edges of its own. Correlations are transitive:
two units that follow one input follow each other. Shuffling them destroys that and so makes any network look modular.
Their null is a rotation of the module axes instead (see `frame_null`): units stay as they are, and inputs and outputs
are exchanged for the same ones in random coordinates. Units that read any direction as readily as that of a module
are as well divided there.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from modulab.metrics.frame_null import equal_features, module_rotations
from modulab.metrics.graphs.graph import Block, Graph, Part
from modulab.metrics.probe import Probe
from modulab.networks.base import INPUT, OUTPUT


def coactivation_graph(probe: Probe) -> Graph:
    """Return the graphs of absolute correlations of inputs, units and outputs."""
    return _correlation_graph(probe, probe.once(_covariances))


def rotated_coactivation_graphs(probe: Probe, numbers: range, count: int) -> Graph:
    """Return the graphs in some of `count` rotations of the module axes, those of a member side by side."""
    partition = probe.task.partition
    rotations = module_rotations(probe.keys, partition.modules, count)[:, numbers.start : numbers.stop]
    frame = torch.eye(sum(part.size for part in coactivation_parts(probe)), dtype=torch.float64)
    frame = frame.to(probe.keys.device).repeat(*rotations.shape[:2], 1, 1)
    last = frame.shape[-1] - probe.clean.outputs.shape[2]
    for side, first in (("inputs", 0), ("outputs", last)):
        features = equal_features(partition, side)
        assert features is not None
        for row, own in enumerate(features):
            for column, other in enumerate(features):
                for one, another in zip(own, other, strict=True):
                    frame[:, :, first + one, first + another] = rotations[:, :, row, column]
    frame = frame.flatten(0, 1)
    covariances = probe.once(_covariances).repeat_interleave(len(numbers), dim=0)
    turned = torch.bmm(torch.bmm(frame, covariances), frame.transpose(1, 2))
    return _correlation_graph(probe, turned)


def coactivation_parts(probe: Probe) -> tuple[Part, ...]:
    """Return the parts: the inputs, the units of each site, and the outputs."""
    sites = (Part(site.name, site.units) for site in probe.network.network.sites)
    inputs, outputs = probe.samples.inputs.shape[2], probe.clean.outputs.shape[2]
    return (Part(INPUT, inputs), *sites, Part(OUTPUT, outputs))


def _covariances(probe: Probe) -> Float64[Tensor, "member node node"]:
    outputs = probe.clean.outputs.transpose(1, 2)
    values = torch.cat([probe.samples.inputs.transpose(1, 2), *probe.activities(), outputs], dim=1).double()
    centred = values - values.mean(dim=2, keepdim=True)
    # What does not vary has a mean that may differ from it by rounding.
    centred = torch.where((values.amax(dim=2) == values.amin(dim=2))[:, :, None], 0.0, centred)
    return torch.bmm(centred, centred.transpose(1, 2)) / values.shape[2]


def _correlation_graph(probe: Probe, covariances: Tensor) -> Graph:
    """Return graphs with a block for each pair of parts, and half of one for a part and itself."""
    variances = torch.diagonal(covariances, dim1=1, dim2=2)
    scale = torch.where(variances > 0, variances.clamp(min=1e-300).rsqrt(), 0.0)
    weights = covariances.abs() * scale[:, :, None] * scale[:, None, :]
    parts = coactivation_parts(probe)
    sizes = [part.size for part in parts]
    varying = variances > 0
    blocks: list[Block] = []
    for target, rows in enumerate(weights.split(sizes, dim=1)):
        for source, own in enumerate(rows.split(sizes, dim=2)[: target + 1]):
            possible = torch.ones_like(own, dtype=torch.bool)
            if source == target:
                possible = possible.tril(-1)
            blocks.append(Block(source, target, torch.where(possible, own, 0.0), possible))
    return Graph(parts, tuple(blocks), directed=False).only(varying)
