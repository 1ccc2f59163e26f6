"""torch.func: one stacked module state, vmap of the gradient over the population, fused Adam on the stack.

`prepare_compiled` is the same under torch.compile, with noise drawn by torch.randn outside: the generator
that the compiler writes for the CPU is several times slower.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from benchmark_contenders.plain_torch import NoisyPerceptron, draw_points, stopped_clock, summarise
from benchmark_contenders.workload import (
    BATCH_SIZE,
    HIDDEN_FEATURES,
    LEARNING_RATE,
    NUM_SAMPLES,
    Repeat,
    Timing,
    Workload,
)

Gradients = Callable[..., tuple[dict[str, Tensor], Tensor]]


def population_gradients(workload: Workload) -> Gradients:
    """Return a function of stacked parameters, minibatches, targets, sigmas and perhaps noise: gradients, losses."""
    skeleton = NoisyPerceptron(workload.noise)

    def loss(
        parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor, sigma: Tensor, *draws: Tensor
    ) -> Tensor:
        outputs = functional_call(skeleton, parameters, (inputs, sigma, *draws))
        return nn.functional.mse_loss(outputs, targets)

    return vmap(grad_and_value(loss), randomness="different")


def _prepare(workload: Workload, compiled: bool) -> Repeat:
    networks = workload.population
    gradients = population_gradients(workload)
    if compiled:
        gradients = torch.compile(gradients, fullgraph=True)
    draw_outside = compiled and workload.noise
    device = workload.device
    sigmas = torch.full((networks,), workload.sigma, device=device)
    first_point = torch.arange(networks, device=device)[:, None] * NUM_SAMPLES

    def train(parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> list[Tensor]:
        optimiser = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE, fused=True)
        losses: list[Tensor] = []
        for _ in range(workload.steps):
            chosen = (first_point + torch.randint(NUM_SAMPLES, (networks, BATCH_SIZE), device=device)).view(
                -1
            )
            batch, wanted = (
                table.index_select(0, chosen).view(networks, BATCH_SIZE, -1) for table in (inputs, targets)
            )
            draws = (
                [torch.randn(networks, BATCH_SIZE, HIDDEN_FEATURES, device=device)] if draw_outside else []
            )
            gradient, loss = gradients(parameters, batch, wanted, sigmas, *draws)
            for name, parameter in parameters.items():
                parameter.grad = gradient[name]
            optimiser.step()
            losses.append(loss)
        return losses

    def repeat(number: int) -> Timing:
        torch.manual_seed(number)
        inputs, targets = (table.flatten(0, 1) for table in draw_points(networks, device=device))
        parameters, _ = stack_module_state([NoisyPerceptron(workload.noise) for _ in range(networks)])
        parameters = {name: parameter.detach().to(device) for name, parameter in parameters.items()}
        start = stopped_clock(device)
        losses = train(parameters, inputs, targets)
        return summarise(losses, stopped_clock(device) - start, networks * workload.steps)

    return repeat


def prepare(workload: Workload) -> Repeat:
    return _prepare(workload, compiled=False)


def prepare_compiled(workload: Workload) -> Repeat:
    return _prepare(workload, compiled=True)
