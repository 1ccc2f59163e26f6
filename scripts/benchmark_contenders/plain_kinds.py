"""Kinds of networks in torch.nn alone, as a user would write them: for speed comparisons and independent tests.

Their parameters have the names that modulab's layouts have, so that one can begin where the other does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": nn.functional.softplus,
    "linear": nn.Identity(),
}  # fmt: skip


class PlainPerceptron(nn.Module):
    """One hidden layer of relu units."""

    def __init__(self, in_features: int, out_features: int, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(in_features, width)
        self.hidden = nn.ReLU()
        self.write = nn.Linear(width, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.write(self.hidden(self.read(inputs)))


class PlainExperts(nn.Module):
    """A mixture of experts, expert by expert."""

    def __init__(self, member: Any) -> None:
        super().__init__()
        settings, task = member.architecture, member.task
        self.kept = settings.top_k or settings.experts
        units = settings.experts * settings.width
        self.width, self.activation = settings.width, FUNCTIONS[settings.activation]
        self.read = nn.Linear(task.in_features, units)
        self.gate = nn.Linear(task.in_features, settings.experts)
        self.gate.requires_grad_(settings.gate != "frozen")
        self.write = nn.Linear(units, task.out_features)
        self.write.bias = nn.Parameter(torch.empty(task.out_features, settings.experts))

    def forward(self, inputs: Tensor) -> Tensor:
        logits, chosen = self.gate(inputs).topk(self.kept, dim=1)
        shares = torch.zeros(len(inputs), self.gate.out_features).scatter(1, chosen, logits.softmax(dim=1))
        outputs = torch.zeros(len(inputs), self.write.out_features)
        for expert in range(self.gate.out_features):
            own = slice(expert * self.width, (expert + 1) * self.width)
            hidden = self.activation(nn.functional.linear(inputs, self.read.weight[own], self.read.bias[own]))
            answer = nn.functional.linear(hidden, self.write.weight[:, own], self.write.bias[:, expert])
            outputs = outputs + shares[:, expert, None] * answer
        return outputs


class PlainRecurrent(nn.Module):
    """A leaky recurrent network, step by step."""

    def __init__(self, member: Any) -> None:
        super().__init__()
        task, architecture = member.task, member.architecture
        self.ordered, self.modules_of_task, self.steps = (
            len(task.input_shape) == 2,
            task.modules,
            architecture.steps,
        )
        if self.ordered:
            self.steps = task.input_shape[0]
        channels = task.in_features // (self.steps if self.ordered else 1)
        self.leak, self.activation = architecture.leak, FUNCTIONS[architecture.activation]
        self.read = nn.Linear(channels, architecture.width)
        self.recurrent = nn.Linear(architecture.width, architecture.width, bias=False)
        self.write = nn.Linear(architecture.width, task.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.zeros(len(inputs), self.recurrent.in_features)
        by_module = inputs.view(len(inputs), self.modules_of_task, -1)
        for step in range(self.steps):
            shown = inputs
            if self.ordered:
                size = by_module.shape[2] // self.steps
                shown = by_module[:, :, step * size : (step + 1) * size].flatten(1)
            sums = self.read(shown) + self.recurrent(hidden)
            hidden = (1 - self.leak) * hidden + self.leak * self.activation(sums)
        return self.write(hidden)


class PlainConvolution(nn.Module):
    """Convolutions, and a readout."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        read, self.shape = shape.input_channels, shape
        self.convolution = nn.ModuleList()
        for layer in shape.layers:
            padding = (layer.extent[0] // 2, layer.extent[1] // 2)
            self.convolution.append(
                nn.Conv2d(read, shape.channels, layer.extent, stride=shape.stride, padding=padding)
            )
            read = shape.channels
        self.write = nn.Linear(shape.channels * shape.positions_read, shape.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        values = inputs.unflatten(1, (-1, *self.shape.image))
        for convolution in self.convolution:
            values = FUNCTIONS[self.shape.activation](convolution(values))
        return self.write(values.mean(dim=(2, 3)) if self.shape.pool == "mean" else values.flatten(1))


class PlainAttention(nn.Module):
    """One block of attention."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        width, self.tokens, self.heads = network.width, network.tokens, network.heads
        self.read_from = network.readout
        read = width * self.tokens if network.readout == "all" else width
        self.embedding = nn.Linear(network.in_features // self.tokens, width, bias=False)
        self.position = nn.Parameter(torch.zeros(width, self.tokens))
        self.query, self.key, self.value, self.projection = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.hidden = nn.Linear(width, network.hidden)
        self.activation = FUNCTIONS[network.activation]
        self.write = nn.Linear(network.hidden, width, bias=False)
        self.readout = nn.Linear(read, network.out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.embedding(inputs.unflatten(1, (self.tokens, -1))) + self.position.T
        queries, keys, values = (
            linear(states).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        gathered = nn.functional.scaled_dot_product_attention(queries, keys, values)
        states = states + self.projection(gathered.transpose(1, 2).flatten(2))
        states = states + self.write(self.activation(self.hidden(states)))
        match self.read_from:
            case "all":
                return self.readout(states.transpose(1, 2).flatten(1))
            case "mean":
                return self.readout(states.mean(dim=1))
            case "last":
                return self.readout(states[:, -1])


def plain_module(kind: str, member: Any) -> nn.Module:
    """Return a kind's module with the sizes of a member's network."""
    network = member.architecture.network(member.task)
    if kind in ("perceptron", "torch"):
        return PlainPerceptron(network.in_features, network.out_features, 48)
    makers: dict[str, Callable[[], nn.Module]] = {
        "experts": lambda: PlainExperts(member),
        "recurrent": lambda: PlainRecurrent(member),
        "narrow_recurrent": lambda: PlainRecurrent(member),
        "convolution": lambda: PlainConvolution(network),
        "attention": lambda: PlainAttention(network),
    }
    return makers[kind]()


def points_of(member: Any) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of a member's training points."""
    from modulab.streams import member_keys
    from modulab.training.data import training_points

    points = training_points(member.task, member_keys([member.seed]), 0, member.data.num_samples)[0]
    inputs, targets = points.split([member.task.in_features, member.task.num_targets], dim=1)
    return inputs.contiguous(), targets.contiguous()


def loss_of(task: Any, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a task's loss by torch's own functions."""
    if task.loss == "squared":
        return nn.functional.mse_loss(outputs, targets)
    return nn.functional.cross_entropy(outputs.reshape(-1, task.outputs_per_module), targets.flatten().long())
