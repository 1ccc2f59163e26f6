"""Blocks of the tangent kernel, against autograd, one point, output and parameter at a time."""

from __future__ import annotations

import pytest
import torch
from populations import make_network, make_task, probe_of
from torch import Tensor

from modulab.metrics import tangent
from modulab.metrics.probe import Probe
from modulab.metrics.tangent import CrossTangent
from modulab.tasks.base import as_seen
from tests.networks.opaque import Opaque

NAME = "forgetting/cross_tangent"


def by_autograd(probe: Probe, points: int) -> list[float]:
    """Return the ratio from kernels written out by autograd for each member."""
    task, network = probe.task, probe.seen_network
    inputs = as_seen(task, probe.samples.inputs)
    found: list[float] = []
    for member in range(network.num_members):
        own = network.parameters[member].clone().requires_grad_()
        rows: list[list[Tensor]] = [[] for _ in range(task.modules)]
        for point in inputs[member, :points]:
            outputs = network.network.forward(own[None], point[None, None])[0, 0]
            for output, module in enumerate(task.partition.outputs):
                [gradient] = torch.autograd.grad(outputs[output], own, retain_graph=True)
                rows[module].append(gradient.double() * probe.mask[member])
        blocks = [torch.stack(each) for each in rows]
        norms = [(each @ blocks[0].T).norm() for each in blocks]
        across = torch.stack(norms[1:]).square().mean().sqrt()
        found.append(float(across / norms[0]))
    return found


@pytest.mark.parametrize("task", [
    make_task(), make_task(modules=3, code="mixed"),
    make_task("classification"), make_task("classification", modules=3),
], ids=["two", "three mixed", "logits", "logits of three"])  # fmt: skip
@pytest.mark.parametrize("hidden", [(5,), (4, 3)])
def test_cross_tangent_equals_autograd(task, hidden: tuple[int, ...]) -> None:
    probe = probe_of(task, make_network(task, *hidden, members=2, activation="tanh"), num_samples=10)
    expected = by_autograd(probe, 6)
    assert min(expected) > 0.01
    assert CrossTangent(points=6)(probe)[NAME].tolist() == pytest.approx(expected, rel=1e-5)


def test_cross_tangent_of_one_hidden_layer_equals_the_closed_form() -> None:
    # K_21(x, x') = sum_j w_2j w_1j g_j(x) g_j(x') (1 + x.x'); the readout adds nothing across modules, and
    # a_j(x) a_j(x') + 1 to K_11.
    network = make_network(make_task(), 7, members=1)
    probe = probe_of(make_task(), network, num_samples=9)
    x = probe.samples.inputs[0].double()
    reads, writes = (weight[0].double() for weight in network.weights)
    sums = x @ reads.T + network.biases[0][0].double()
    gates, activity = (sums > 0).double(), sums.relu()

    def first_layer(one: int, other: int) -> Tensor:
        return (gates * writes[one] * writes[other]) @ gates.T * (1 + x @ x.T)

    own = first_layer(0, 0) + activity @ activity.T + 1
    expected = float(first_layer(1, 0).norm() / own.norm())
    assert CrossTangent(points=9)(probe)[NAME].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("hidden", [(6,), (6, 7)])
@pytest.mark.parametrize("name", ["regression", "classification"])
def test_premodular_network_has_none_to_the_bit(name: str, hidden: tuple[int, ...]) -> None:
    task = make_task(name, modules=3)
    probe = probe_of(task, make_network(task, *hidden, cross_connections=0.0))
    mask = (probe.network.parameters != 0).float()
    for part, mine in zip(
        probe.network.network.layout, probe.network.network.split(mask).values(), strict=True
    ):
        if not part.is_weight:
            mine.fill_(1.0)  # biases begin at 0 and are trained
    masked = Probe(*(mask if name == "mask" else getattr(probe, name) for name in (
        "task", "settings", "keys", "network", "seen_network", "rotation", "samples", "mask")))  # fmt: skip
    assert CrossTangent(points=8)(masked)[NAME].tolist() == [0.0] * 3


def test_cross_tangent_is_the_same_bits_in_any_company_and_in_any_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = make_task()
    network = make_network(task, 6, members=5)
    whole = CrossTangent(points=7)(probe_of(task, network))[NAME]
    few = CrossTangent(points=7)(probe_of(task, network.select(slice(0, 2))))[NAME]
    assert torch.equal(few, whole[:2])
    monkeypatch.setattr(tangent, "_ELEMENTS", 1)
    assert torch.equal(CrossTangent(points=7)(probe_of(task, network))[NAME], whole)


def test_cross_tangent_needs_nothing_but_a_forward_pass_and_a_second_module() -> None:
    task = make_task()
    network = make_network(task, 6)
    whole = probe_of(task, network)
    inside = network.network
    opaque = type(network.select(slice(0, 3)))(
        Opaque(inside.in_features, inside.out_features, inside), network.parameters
    )
    assert torch.equal(
        CrossTangent(points=5)(probe_of(task, opaque))[NAME], CrossTangent(points=5)(whole)[NAME]
    )
    one = make_task(modules=1)
    assert CrossTangent(points=5).lacking(make_network(one, 4).network, one) == "the task has one module"
