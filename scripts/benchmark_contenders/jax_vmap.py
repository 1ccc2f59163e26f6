"""JAX: all steps in one scan, vmapped over the population, jit-compiled.

`prepare_blocked` runs the population through the same in blocks of eight (lax.map's batch_size), whose
activity stays in the processor's cache. The default generator, threefry, was the fastest of JAX's here.
"""

from __future__ import annotations

import importlib.util
import time
from typing import Any

from benchmark_contenders.workload import (
    BATCH_SIZE,
    BETA_1,
    BETA_2,
    EPSILON,
    HIDDEN_FEATURES,
    IN_FEATURES,
    LEARNING_RATE,
    LOSS_WINDOW,
    NUM_SAMPLES,
    OUT_FEATURES,
    Repeat,
    SkippedContender,
    Timing,
    Workload,
)

_BLOCK = 8


def _prepare(workload: Workload, blocked: bool) -> Repeat:
    if importlib.util.find_spec("jax") is None:
        raise SkippedContender("JAX is not installed; pip install '.[benchmark]' brings it.")
    import jax
    import jax.numpy as jnp

    def linear(key: Any, rows: int, columns: int) -> tuple[Any, Any]:
        return jax.random.normal(key, (rows, columns)) * rows**-0.5, jnp.zeros(columns)

    def initialise(key: Any) -> tuple[Any, Any, Any]:
        first_key, readout_key, point_key = jax.random.split(key, 3)
        parameters = (
            linear(first_key, IN_FEATURES, HIDDEN_FEATURES),
            linear(readout_key, HIDDEN_FEATURES, OUT_FEATURES),
        )
        inputs = jax.random.uniform(point_key, (NUM_SAMPLES, IN_FEATURES), minval=-1, maxval=1)
        targets = jnp.stack([jnp.sin(jnp.pi * inputs[:, 0]), 2 * inputs[:, 1] ** 2 - 1], axis=1)
        return parameters, inputs, targets

    def loss_of(parameters: Any, inputs: Any, targets: Any, key: Any, sigma: Any) -> Any:
        (first_weight, first_bias), (readout_weight, readout_bias) = parameters
        activity = jax.nn.relu(inputs @ first_weight + first_bias)
        if workload.noise:
            activity = activity + sigma * jnp.sqrt(activity) * jax.random.normal(key, activity.shape)
        return ((activity @ readout_weight + readout_bias - targets) ** 2).mean()

    def train(parameters: Any, inputs: Any, targets: Any, key: Any, sigma: Any) -> tuple[Any, Any]:
        def step(state: Any, number: Any) -> tuple[Any, Any]:
            weights, mean, square = state
            batch_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
            chosen = jax.random.randint(batch_key, (BATCH_SIZE,), 0, NUM_SAMPLES)
            loss, gradient = jax.value_and_grad(loss_of)(
                weights, inputs[chosen], targets[chosen], noise_key, sigma
            )
            mean = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, mean, gradient)
            square = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, square, gradient)
            size = LEARNING_RATE / (1 - BETA_1 ** (number + 1.0))
            correction = (1 - BETA_2 ** (number + 1.0)) ** -0.5
            weights = jax.tree.map(
                lambda w, m, v: w - size * m / (jnp.sqrt(v) * correction + EPSILON), weights, mean, square
            )
            return (weights, mean, square), loss

        zeros = jax.tree.map(jnp.zeros_like, parameters)
        (weights, _, _), losses = jax.lax.scan(step, (parameters, zeros, zeros), jnp.arange(workload.steps))
        return weights, losses

    networks = workload.population
    initialise_all = jax.jit(jax.vmap(initialise))
    if blocked:
        train_all = jax.jit(
            lambda *arguments: jax.lax.map(lambda each: train(*each), arguments, batch_size=_BLOCK)
        )
    else:
        train_all = jax.jit(jax.vmap(train))
    sigmas = jnp.full((networks,), workload.sigma)

    def repeat(number: int) -> Timing:
        keys = jax.random.split(jax.random.key(number), networks)
        arguments = jax.block_until_ready((*initialise_all(keys), keys, sigmas))
        start = time.perf_counter()
        _, losses = jax.block_until_ready(train_all(*arguments))
        seconds = time.perf_counter() - start
        first, last = losses[:, :LOSS_WINDOW].mean(), losses[:, -LOSS_WINDOW:].mean()
        return Timing(seconds, networks * workload.steps, float(first), float(last))

    return repeat


def prepare(workload: Workload) -> Repeat:
    return _prepare(workload, blocked=False)


def prepare_blocked(workload: Workload) -> Repeat:
    return _prepare(workload, blocked=True)
