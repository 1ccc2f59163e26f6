"""Torch modules as users write them, and some that cannot be trained side by side."""

from __future__ import annotations

import numpy as np
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


class DroppedInLargeBatches(Plain):
    """Draws from NumPy where it is called with more than a few samples."""

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.hidden(self.read(inputs))
        return self.write(hidden * np.random.uniform() if len(inputs) > 3 else hidden)  # noqa: NPY002


class DrawnInLargeBatches(Plain):
    """Draws from a generator of its own where it is called with more than a few samples."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.generator = np.random.default_rng(0)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.hidden(self.read(inputs))
        return self.write(hidden * self.generator.uniform() if len(inputs) > 3 else hidden)


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


class Failing(Plain):
    """Fails in training, where it was asked to."""

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


class DrawnInAList(Plain):
    """Draws something that is neither a parameter nor a buffer."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.fixed = [torch.randn(out_features)]

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + self.fixed[0]


class InAList(Plain):
    """Reaches a parameter by way of a list."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.weights = [self.write.weight]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.hidden(self.read(inputs)) @ self.weights[0].T


class Unseeded(Plain):
    """Draws from a generator that has no seed."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        drawn = np.random.default_rng().normal(size=(out_features, 6))
        self.write.weight = nn.Parameter(torch.tensor(drawn, dtype=torch.float32))


class Ageing(Plain):
    """Counts its calls."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(inputs) * min(1.0, self.calls / 1000)


class Normalised(Plain):
    """Normalises over the samples of a batch."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.norm = nn.BatchNorm1d(6, track_running_stats=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.write(self.hidden(self.norm(self.read(inputs))))


class Transposed(Plain):
    """Two parameters that share their memory."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.back = nn.Parameter(self.write.weight.T)


class Double(Plain):
    """Parameters of another type."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))


class Lazy(Plain):
    """A layer without a shape."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.write = nn.LazyLinear(out_features)


class Masked(Plain):
    """A buffer that is infinite, and an activation that goes on in place."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_buffer("mask", torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -torch.inf]))
        self.hidden = nn.Linear(6, 6)
        self.last = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        shares = (self.read(inputs) + self.mask).softmax(dim=1)
        return self.write(self.last(self.hidden(shares)))


class Settled(Plain):
    """A normalisation by statistics that stay as they are."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.norm = nn.BatchNorm1d(6).eval()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.write(self.hidden(self.norm(self.read(inputs))))


class Constant(Plain):
    """Numbers that are the same in all networks: in a plain tensor, and whole ones in a buffer."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.scales = torch.linspace(0.5, 1.5, 6)
        self.register_buffer("places", torch.arange(6))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.hidden(self.read(inputs) * self.scales)
        return self.write(hidden * (self.places >= 2) + 0.01 * self.places)


class Branching(Plain):
    """Does one thing or another by what it sees."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return outputs if bool(outputs.isfinite().all()) else -outputs


class Gated(Plain):
    """A recurrent layer of torch, which has no form for many networks at once."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.steps = nn.GRU(1, 6, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.write(self.hidden(self.steps(inputs[..., None])[0][:, -1]))


class Complex(Plain):
    """Returns complex numbers."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * 1j
