"""Torch modules as users write them, and some that cannot be trained side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """One hidden layer."""

    def __init__(self, in_features: int, out_features: int, width: int = 6) -> None:
        super().__init__()
        self.read = nn.Linear(in_features, width)
        self.hidden = nn.Tanh()
        self.write = nn.Linear(width, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.write(self.hidden(self.read(inputs)))


class Rich(nn.Module):
    """A layer that is used twice, a normalisation, a tied weight, a fixed random projection and a count."""

    def __init__(self, in_features: int, out_features: int, width: int = 6) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(width, in_features))
        self.register_buffer("places", torch.arange(width))
        self.norm = nn.LayerNorm(width)
        self.again = nn.Linear(width, width)
        self.tied = nn.Linear(width, width)
        self.tied.weight = self.again.weight
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.frozen = nn.Parameter(torch.randn(width), requires_grad=False)
        self.active = nn.ReLU()
        self.write = nn.Linear(width, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.active(self.norm(inputs @ self.projection.T + self.frozen))
        hidden = self.active(self.again(hidden) + self.scale * self.tied(hidden))
        return self.write(hidden * (self.places >= 0))


class Channels(nn.Module):
    """A convolution over the inputs of a sample, its channels as units."""

    def __init__(self, in_features: int, out_features: int, channels: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, channels, 3, padding=1)
        self.active = nn.ReLU()
        self.write = nn.Linear(channels * in_features, out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.write(self.active(self.convolution(inputs[:, None])).flatten(1))


class Dropped(Plain):
    """Draws random numbers when it is called."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.write(nn.functional.dropout(self.hidden(self.read(inputs)), 0.2))


class Remembering(Plain):
    """Keeps running statistics."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.write(self.hidden(self.norm(self.read(inputs))))


class Narrow(Plain):
    """Returns one output, whatever the task asks for."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)[:, :1]


class Counting(Plain):
    """Counts in Python what it is called for, so that it fails later, and only where it was asked to."""

    def __init__(self, in_features: int, out_features: int, fails: bool = False) -> None:
        super().__init__(in_features, out_features)
        self.fails = fails

    def forward(self, inputs: Tensor) -> Tensor:
        if self.fails and len(inputs) != 3:
            raise LookupError("no such feature")
        return super().forward(inputs)


class Unbuildable(Plain):
    """Fails in its constructor for one width."""

    def __init__(self, in_features: int, out_features: int, width: int) -> None:
        if width == 7:
            raise ArithmeticError("seven is not allowed")
        super().__init__(in_features, out_features, width)
