"""Error under perturbations of growing level, and the level a network tolerates.

Draws do not depend on the level: a perturbation's levels share their random numbers, so that error grows
smoothly with level and the tolerance read off it carries little sampling error. They are drawn from the
member's own key and the streams of evaluation, which training never uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import torch
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor

from modulab.metrics.poisson import poisson_quantiles
from modulab.metrics.probe import Probe, in_module_coordinates
from modulab.networks import Perturbation, PopulationWeights, forward, forward_from
from modulab.noise import NoiseLaw, layer_keys, relative_variance
from modulab.streams import Stream, fold_in, normals, uniforms


class _ActivityNoise(IntEnum):
    """Keeps apart the draws of perturbations of activity. Part of every result: never change or reuse one."""

    GAUSSIAN = 0
    POISSON = 1
    MULTIPLICATIVE = 2
    POISSON_COUNTS = 3


_LAWS: dict[_ActivityNoise, tuple[float, float, float]] = {
    _ActivityNoise.GAUSSIAN: (1.0, 0.0, 0.0),
    _ActivityNoise.POISSON: (0.0, 1.0, 0.0),
    _ActivityNoise.MULTIPLICATIVE: (0.0, 0.0, 1.0),
}


def tolerance(
    levels: Sequence[float],
    errors: Float[Tensor, "member level"],
    clean: Float[Tensor, " member"],
    floor: float,
    squared: bool = True,
) -> Float64[Tensor, " member"]:
    """Return the lowest level at which error reaches twice the larger of clean error and `floor`.

    `levels` rise from above 0; level 0 has the clean error. Between levels, error is interpolated as a
    straight line in the level squared, the variance that noise adds, to which error is proportional
    wherever a network is near linear, or in the level itself unless `squared`.

    A member that tolerates all levels is given the last one: read that as "at least". NaN where the clean
    error is not finite.
    """
    places = torch.tensor([0.0, *levels], dtype=torch.float64, device=errors.device)
    places = places.square() if squared else places
    curve = torch.cat([clean[:, None], errors], dim=1).double()
    threshold = 2 * curve[:, :1].clamp(min=floor)
    tolerated = (curve[:, 1:] < threshold).int()
    before = tolerated.cumprod(dim=1).sum(dim=1)
    after = (before + 1).clamp(max=len(levels))[:, None]
    lower, upper = curve.gather(1, before[:, None]), curve.gather(1, after)
    share = ((threshold - lower) / (upper - lower))[:, 0]
    left, right = places[before], places[after[:, 0]]
    crossing = torch.where(before == len(levels), places[-1], left + share * (right - left))
    crossing = crossing.sqrt() if squared else crossing
    return torch.where(torch.isfinite(clean), crossing, torch.nan)


def poisson_count_rates(
    activity: Float[Tensor, "member hidden_features batch"],
    level: float,
    scores: Float[Tensor, "member hidden_features batch"],
) -> Float[Tensor, "member hidden_features batch"]:
    """Return sign(a) n / T, n a Poisson count of mean |a| T, over a window T = 1 / level^2.

    Its mean is a and its variance |a| / T: the law that Poisson-like noise approximates. `scores` are the
    standard normal draws that choose the counts; more count for a higher score.
    """
    window = 1 / (level * level)
    counts = poisson_quantiles(activity.abs() * window, scores)
    return torch.sign(activity) * (counts / window).to(activity.dtype)


def weight_draws(
    network: PopulationWeights, keys: Int32[Tensor, "member 2"]
) -> list[Float[Tensor, "member _out_features _in_features"]]:
    """Return a standard normal draw for each weight."""
    return [
        normals(layer_keys(keys, layer), weight.shape[1], weight.shape[2])
        for layer, weight in enumerate(network.weights)
    ]


def scale_weights(
    network: PopulationWeights,
    level: float,
    draws: Sequence[Float[Tensor, "member _out_features _in_features"]],
) -> PopulationWeights:
    """Return the network with each weight W times 1 + level xi, xi its standard normal draw; biases stay."""
    weights = tuple(weight * (1 + level * draw) for weight, draw in zip(network.weights, draws, strict=True))
    return PopulationWeights(weights, network.biases, network.activation)


def ablation_order(
    network: PopulationWeights, keys: Int32[Tensor, "member 2"]
) -> list[Int64[Tensor, "member _hidden_features"]]:
    """Return for each unit of each hidden layer the place, from 0, at which it is lost as the share lost rises."""
    places: list[Tensor] = []
    for layer, weight in enumerate(network.weights[:-1]):
        units = weight.shape[1]
        counters = torch.arange(units, dtype=torch.int32, device=keys.device).view(1, units)
        order = torch.argsort(uniforms(layer_keys(keys, layer), counters), dim=1, stable=True)
        places.append(torch.argsort(order, dim=1, stable=True))
    return places


def ablate_units(fraction: float, order: Sequence[Int64[Tensor, "member _hidden_features"]]) -> Perturbation:
    """Return a perturbation that silences a share of each hidden layer's units, rounded, at least one.

    Units lost at one share are lost at every larger one.
    """

    def silence(layer: int, activity: Tensor) -> Tensor:
        kept = order[layer] >= max(1, round(fraction * activity.shape[1]))
        return activity * kept[:, :, None]

    return silence


def measure_gaussian(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `robustness/gaussian`: noise of variance level^2 on every hidden unit."""
    return _under_law(probe, "gaussian", _ActivityNoise.GAUSSIAN)


def measure_poisson(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `robustness/poisson`: noise of variance level^2 |a| on every hidden unit."""
    return _under_law(probe, "poisson", _ActivityNoise.POISSON)


def measure_multiplicative(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `robustness/multiplicative`: noise of variance level^2 a^2 on every hidden unit."""
    return _under_law(probe, "multiplicative", _ActivityNoise.MULTIPLICATIVE)


def measure_poisson_counts(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `robustness/poisson_counts`: every hidden activity a Poisson count over a window 1 / level^2."""
    noise_keys = _noise_keys(probe, _ActivityNoise.POISSON_COUNTS)
    clean = probe.clean.activities
    scores = [_draws(noise_keys, layer, activity) for layer, activity in enumerate(clean)]

    def outputs_at(level: float) -> Tensor:
        def count(layer: int, activity: Tensor) -> Tensor:
            return poisson_count_rates(activity, level, scores[layer])

        return _outputs_from_first(probe, count)

    return _curve(probe, "poisson_counts", probe.settings.levels, outputs_at)


def measure_weight_noise(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `robustness/weight_noise`: every weight, as trained, times 1 + level xi.

    `probes.repeats` noisy networks are drawn, and the evaluation points shared out over them.
    """
    repeats = probe.settings.repeats
    keys = _repeated_keys(fold_in(probe.keys, Stream.WEIGHT_NOISE), repeats)
    seen = _repeated(probe.seen_network, repeats)
    draws = weight_draws(seen, keys)
    inputs = _in_shares(probe.samples.inputs.transpose(1, 2), repeats).transpose(1, 2)

    def outputs_at(level: float) -> Tensor:
        network = in_module_coordinates(scale_weights(seen, level, draws), probe.rotation)
        return _out_of_shares(probe, forward(network, inputs).outputs)

    return _curve(probe, "weight_noise", probe.settings.levels, outputs_at)


def measure_input_noise(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `robustness/input_noise`: noise of variance level^2 on every input.

    The targets are those of the clean inputs. Mixing makes no difference: a rotation of such noise is
    such noise.
    """
    inputs = probe.samples.inputs
    draws = normals(fold_in(probe.keys, Stream.INPUT_NOISE), inputs.shape[1], inputs.shape[2])
    passed_on = torch.bmm(probe.network.weights[0], draws.transpose(1, 2))
    clean = _values_of_layer(probe, 0)

    def outputs_at(level: float) -> Tensor:
        return forward_from(probe.network, 0, torch.add(clean, passed_on, alpha=level)).outputs

    return _curve(probe, "input_noise", probe.settings.levels, outputs_at)


def measure_ablation(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `robustness/ablation`: a share of each hidden layer's units silenced; levels are shares.

    `probes.repeats` sets of units are drawn, and the evaluation points shared out over them.
    """
    repeats = probe.settings.repeats
    keys = _repeated_keys(fold_in(probe.keys, Stream.ABLATION), repeats)
    network = _repeated(probe.network, repeats)
    activities = probe.clean.activities
    order = ablation_order(network, keys)
    # The first layer's activity is the same at every share.
    first = _in_shares(activities[0], repeats) if activities else torch.zeros(())

    def outputs_at(fraction: float) -> Tensor:
        if not activities:
            return probe.clean.outputs
        silence = ablate_units(fraction, order)
        values = torch.baddbmm(network.biases[1][:, :, None], network.weights[1], silence(0, first))
        return _out_of_shares(probe, forward_from(network, 1, values, silence).outputs)

    return _curve(probe, "ablation", probe.settings.ablated_fractions, outputs_at, squared=False)


def _under_law(probe: Probe, name: str, kind: _ActivityNoise) -> dict[str, Tensor]:
    noise_keys = _noise_keys(probe, kind)
    ones = torch.ones(len(probe.keys), device=probe.keys.device)
    unit_law = NoiseLaw(ones, *(coefficient * ones for coefficient in _LAWS[kind]))

    def noise(layer: int, activity: Tensor) -> Tensor:
        return relative_variance(activity, unit_law).sqrt_().mul_(_draws(noise_keys, layer, activity))

    clean = probe.clean.activities
    if not clean:
        return _curve(probe, name, probe.settings.levels, lambda _: probe.clean.outputs)
    # At every level the first hidden layer has the same activity. So its noise is drawn once, and what it adds
    # to the values of the next layer is proportional to the level.
    added = torch.bmm(probe.network.weights[1], noise(0, clean[0]))
    values = _values_of_layer(probe, 1)

    def outputs_at(level: float) -> Tensor:
        def perturb(layer: int, activity: Tensor) -> Tensor:
            return activity + level * noise(layer, activity)

        return forward_from(probe.network, 1, torch.add(values, added, alpha=level), perturb).outputs

    return _curve(probe, name, probe.settings.levels, outputs_at)


def _values_of_layer(probe: Probe, layer: int) -> Tensor:
    """Return the clean pre-activations of a layer, or the outputs if it is the last: (member, feature, batch)."""
    if layer < len(probe.clean.pre_activations):
        return probe.clean.pre_activations[layer]
    return probe.clean.outputs.transpose(1, 2)


def _outputs_from_first(probe: Probe, perturb: Perturbation) -> Tensor:
    """Return outputs under a perturbation of activity, which leaves the first pre-activations as they are."""
    return forward_from(probe.network, 0, _values_of_layer(probe, 0), perturb).outputs


def _draws(noise_keys: Tensor, layer: int, activity: Tensor) -> Tensor:
    return normals(layer_keys(noise_keys, layer), activity.shape[1], activity.shape[2])


def _curve(
    probe: Probe,
    name: str,
    levels: Sequence[float],
    outputs_at: Callable[[float], Tensor],
    squared: bool = True,
) -> dict[str, Tensor]:
    """Return error at each level, and the tolerance."""
    if not levels:
        return {}

    def error_of(outputs: Tensor) -> Tensor:
        task = probe.task
        return task.loss_function.errors(outputs, probe.samples.targets, task.partition).mean(dim=1)

    errors = [error_of(outputs_at(level)) for level in levels]
    measures = {f"robustness/{name}@{level:g}": error for level, error in zip(levels, errors, strict=True)}
    clean = error_of(probe.clean.outputs)
    measures[f"robustness/{name}/tolerance"] = tolerance(
        levels, torch.stack(errors, dim=1), clean, probe.settings.error_floor, squared
    )
    return measures


def _noise_keys(probe: Probe, kind: _ActivityNoise) -> Tensor:
    return fold_in(fold_in(probe.keys, Stream.EVALUATION_NOISE), int(kind))


def _repeated_keys(keys: Tensor, repeats: int) -> Tensor:
    """Return keys of (member, repeat), flattened: a member's repeats lie side by side."""
    numbers = torch.arange(repeats, dtype=torch.int32, device=keys.device).repeat(len(keys))
    return fold_in(keys.repeat_interleave(repeats, dim=0), numbers)


def _repeated(network: PopulationWeights, repeats: int) -> PopulationWeights:
    return PopulationWeights(
        tuple(weight.repeat_interleave(repeats, dim=0) for weight in network.weights),
        tuple(bias.repeat_interleave(repeats, dim=0) for bias in network.biases),
        network.activation,
    )


def _in_shares(values: Tensor, repeats: int) -> Tensor:
    """Return (member, feature, batch) values as (member and repeat, feature, share of the batch).

    The last points stand in for those missing from the last shares.
    """
    batch = values.shape[2]
    share = -(-batch // repeats)
    if share * repeats > batch:
        points = torch.arange(share * repeats, device=values.device).clamp(max=batch - 1)
        values = values[:, :, points]
    return values.unflatten(2, (repeats, share)).transpose(1, 2).flatten(0, 1)


def _out_of_shares(probe: Probe, outputs: Tensor) -> Tensor:
    """Return outputs of (member and repeat, share of the batch, feature) point by point, stand-ins dropped."""
    batch = probe.samples.inputs.shape[1]
    return outputs.unflatten(0, (-1, probe.settings.repeats)).flatten(1, 2)[:, :batch]
