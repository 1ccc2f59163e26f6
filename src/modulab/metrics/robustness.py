"""Error under perturbations of growing level, and the level a network tolerates.

Draws do not depend on the level: a perturbation's levels share their random numbers, so error grows
smoothly with level and the tolerance read off it carries little sampling error. They are drawn from the
member's own key and the streams of evaluation, which training never uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor

from modulab.metrics.activity import finite_mean, measured_units
from modulab.metrics.measure import Column, measure
from modulab.metrics.native import module_errors
from modulab.metrics.native_robustness import (
    OutputsAt,
    count_windows,
    noise_keys,
    normal_draws,
    out_of_shares,
    under_ablation,
    under_counts,
    under_counts_at_sites,
    under_input_noise,
    under_law,
    under_weight_noise,
)
from modulab.metrics.poisson import places_of, poisson_quantiles
from modulab.metrics.probe import Probe, in_module_coordinates, outputs_in_parts, outputs_on
from modulab.metrics.row_functions import ActivityNoise, unit_noise
from modulab.networks.base import Network, NetworkPopulation, Tap, by_visit, of_visit
from modulab.noise import site_keys, visit_keys
from modulab.streams import Stream, drawn_normals, fold_in, uniforms

_MOST_ACTIVE = 0.8
"""Share of active units from which on leaving out the silent ones saves no time."""


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
    # By NumPy, because torch takes as long to begin these operations as the perturbed passes take.
    places = np.array([0.0, *levels])
    places = places**2 if squared else places
    curve = torch.cat([clean[:, None], errors], dim=1).double().cpu().numpy()
    threshold = 2 * np.maximum(curve[:, 0], floor)
    before = (curve[:, 1:] < threshold[:, None]).cumprod(axis=1).sum(axis=1)
    after, rows = np.minimum(before + 1, len(levels)), np.arange(len(curve))
    with np.errstate(all="ignore"):  # of members whose errors are not finite, or that tolerate all levels
        share = (threshold - curve[rows, before]) / (curve[rows, after] - curve[rows, before])
        crossing = places[before] + share * (places[after] - places[before])
    crossing[before == len(levels)] = places[-1]
    crossing[~np.isfinite(curve[:, 0])] = np.nan
    return torch.from_numpy(np.sqrt(crossing) if squared else crossing).to(errors.device)


def poisson_count_rates(
    activity: Float[Tensor, "member hidden_features batch"],
    level: float,
    scores: Float[Tensor, "member hidden_features batch"],
) -> Float[Tensor, "member hidden_features batch"]:
    """Return sign(a) n / T, n a Poisson count of mean |a| T, over a window T = 1 / level^2.

    Its mean is a and its variance |a| / T: the law that Poisson-like noise approximates. `scores` are the
    standard normal draws that choose the counts; more count for a higher score.
    """
    return _count_rates(activity, scores)(level)


def _count_rates(activity: Tensor, scores: Tensor) -> Callable[[float], Tensor]:
    """Return `poisson_count_rates` as a function of the level. Where many units are silent, which count nothing, they
    are left out once."""
    flat = activity.flatten()
    places = places_of(flat != 0)
    if len(places) > _MOST_ACTIVE * len(flat):
        return lambda level: _rates_counted(activity, level, scores)
    values, chosen = flat.index_select(0, places), scores.flatten().index_select(0, places)

    def rates_at(level: float) -> Tensor:
        counted = _rates_counted(values, level, chosen)
        return torch.zeros_like(flat).index_copy_(0, places, counted).view(activity.shape)

    return rates_at


def _rates_counted(activity: Tensor, level: float, scores: Tensor) -> Tensor:
    window = 1 / (level * level)
    counts = poisson_quantiles(activity.abs() * window, scores).div_(window)
    return torch.sign(activity) * counts.to(activity.dtype)


def weight_draws(network: Network, keys: Int32[Tensor, "member 2"]) -> Float[Tensor, "member parameter"]:
    """Return a standard normal draw for each weight, and 0 for biases and the like."""
    draws: list[Tensor] = []
    number = 0
    for parameter in network.layout:
        if parameter.is_weight:
            rows = parameter.shape[0]
            draws.append(drawn_normals(site_keys(keys, number), rows, parameter.size // rows).flatten(1))
            number += 1
        else:
            draws.append(torch.zeros(len(keys), parameter.size, device=keys.device))
    return torch.cat(draws, dim=1)


def scale_weights(
    network: NetworkPopulation, level: float, draws: Float[Tensor, "member parameter"]
) -> NetworkPopulation:
    """Return the networks with each parameter times 1 + level xi, xi its draw of `weight_draws`."""
    return NetworkPopulation(network.network, network.parameters * (1 + level * draws))


def ablation_order(
    network: Network, keys: Int32[Tensor, "member 2"]
) -> dict[str, Int64[Tensor, "member _unit"]]:
    """Return for each unit of each site the place, from 0, at which it is lost as the share lost rises."""
    places: dict[str, Tensor] = {}
    for number, site in enumerate(network.sites):
        counters = torch.arange(site.units, dtype=torch.int32, device=keys.device).view(1, site.units)
        order = torch.argsort(uniforms(site_keys(keys, number), counters), dim=1, stable=True)
        ranks = torch.arange(site.units, device=keys.device).expand_as(order)
        places[site.name] = torch.empty_like(order).scatter_(1, order, ranks)
    return places


def ablate_units(fraction: float, order: Mapping[str, Int64[Tensor, "member _unit"]]) -> Tap:
    """Return a tap that silences a share of each site's units, rounded, at least one.

    Units lost at one share are lost at every larger one.
    """

    def silence(place: str, values: Tensor) -> Tensor:
        if place not in order:
            return values
        return values * _kept(order[place], fraction)[:, :, None]

    return silence


def _all_kept(order: Mapping[str, Tensor], fraction: float) -> Float[Tensor, "member unit"]:
    """Return 1 for each unit that is kept at a share lost, and 0 for others, site after site."""
    return torch.cat([_kept(places, fraction) for places in order.values()], dim=1).float()


def _kept(order: Tensor, fraction: float) -> Tensor:
    return order >= max(1, round(fraction * order.shape[1]))


def _columns(name: str, perturbation: str) -> list[Column]:
    return [
        Column(
            f"error_under/{name}@{{level}}",
            f"Error under {perturbation} {{level}}",
            family=f"Error under {perturbation}",
        ),
        Column(f"robustness/{name}/tolerance", f"Tolerance to {perturbation}"),
    ]


@measure(*_columns("gaussian", "Gaussian noise"), needs=("sites",))
def measure_gaussian(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `error_under/gaussian`: noise of variance level^2 on every hidden unit."""
    return _under_law(probe, "gaussian", ActivityNoise.GAUSSIAN)


@measure(*_columns("poisson", "Poisson noise"), needs=("sites",))
def measure_poisson(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `error_under/poisson`: noise of variance level^2 |a| on every hidden unit."""
    return _under_law(probe, "poisson", ActivityNoise.POISSON)


@measure(*_columns("poisson_energy", "equal-energy noise"), needs=("sites",))
def measure_poisson_energy(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `error_under/poisson_energy`: noise of variance level^2 abar |a| on every hidden unit.

    abar is the mean |a| over the units of the unit's site and over evaluation points, of the clean network itself.
    Poisson noise alone is weaker, relative to what it disturbs, the larger the activity: a relu network escapes it by
    a -> c a, W -> W / c, which leaves its function as it is. This noise scales with c as activity does. It is
    invariant where all units of a site have one c; for a c of each unit's own, abar shifts noise between units.

    Draws are those of `error_under/poisson`, so the two differ by abar alone.
    """
    sites = probe.network.network.sites
    means = probe.once(measured_units)[:, 0].split([site.units for site in sites], dim=1) if sites else ()
    gains = {site.name: finite_mean(own, dim=1).sqrt() for site, own in zip(sites, means, strict=True)}
    return _under_law(probe, "poisson_energy", ActivityNoise.POISSON, gains)


@measure(*_columns("multiplicative", "multiplicative noise"), needs=("sites",))
def measure_multiplicative(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `error_under/multiplicative`: noise of variance level^2 a^2 on every hidden unit."""
    return _under_law(probe, "multiplicative", ActivityNoise.MULTIPLICATIVE)


@measure(*_columns("poisson_counts", "Poisson counts"), needs=("sites",))
def measure_poisson_counts(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `error_under/poisson_counts`: every hidden activity a Poisson count over a window 1 / level^2."""
    native = under_counts(probe) or under_counts_at_sites(probe, _outputs_by_counts)
    if native is not None:
        return _curve(probe, "poisson_counts", probe.settings.levels, _all_at_once(probe, native))
    errors_at = _one_by_one(probe, _outputs_by_counts(probe))
    return _curve(probe, "poisson_counts", probe.settings.levels, errors_at)


def _outputs_by_counts(probe: Probe) -> Callable[[float], Tensor]:
    """Return outputs under Poisson counts by the level."""
    keys = noise_keys(probe, ActivityNoise.POISSON_COUNTS)
    sites = probe.network.network.sites
    scores = {
        site.name: _draws(probe, keys, number, activity)
        for number, (site, activity) in enumerate(zip(sites, probe.activities(), strict=True))
    }

    sums = _clean_sums(probe, 0)
    first: list[Callable[[float], Tensor]] = []

    def outputs_at(level: float) -> Tensor:
        def count(place: str, values: Tensor, visit: int) -> Tensor:
            if place not in scores:
                return values
            own = of_visit(scores[place], values, visit)
            counted = probe.kernels.count_rates(values, count_windows([level])[None], own)
            if counted is not None:
                return counted[:, 0]
            if place != sites[0].name or visit > 0:
                return poisson_count_rates(values, level, own)
            if not first:  # At every level the first site has the same activity.
                first.append(_count_rates(values, own))
            return first[0](level)

        return _run_from(probe, slice(None), 0, sums, by_visit(count))

    return outputs_at


@measure(*_columns("weight_noise", "weight noise"))
def measure_weight_noise(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `error_under/weight_noise`: every weight, as trained, times 1 + level xi.

    `probes.repeats` noisy networks are drawn, and the evaluation points shared out over them.
    """
    repeats = probe.settings.repeats
    keys = _repeated_keys(fold_in(probe.keys, Stream.WEIGHT_NOISE), repeats)
    seen = probe.seen_network.repeated(repeats)
    draws = weight_draws(seen.network, keys)
    inputs = _in_shares(probe.samples.inputs.transpose(1, 2), repeats)

    def networks_at(level: float, rows: slice) -> NetworkPopulation:
        return in_module_coordinates(scale_weights(seen.select(rows), level, draws[rows]), probe.rotation)

    native = under_weight_noise(probe, networks_at, inputs)

    def outputs_at(level: float) -> Tensor:
        outputs = outputs_on(networks_at(level, slice(None)), inputs.transpose(1, 2))
        return out_of_shares(probe, outputs.transpose(1, 2)).transpose(1, 2)

    errors_at = _one_by_one(probe, outputs_at) if native is None else _all_at_once(probe, native)
    return _curve(probe, "weight_noise", probe.settings.levels, errors_at)


@measure(*_columns("input_noise", "input noise"))
def measure_input_noise(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `error_under/input_noise`: noise of variance level^2 on every input.

    The targets are those of the clean inputs. Mixing makes no difference: a rotation of such noise is
    such noise.
    """
    inputs = probe.samples.inputs
    draws = normal_draws(probe, fold_in(probe.keys, Stream.INPUT_NOISE), *inputs.shape[1:])
    native = under_input_noise(probe, draws)
    if native is not None:
        return _curve(probe, "input_noise", probe.settings.levels, _all_at_once(probe, native))
    added = _added_sums(probe, 0, draws.transpose(1, 2))
    clean = _clean_sums(probe, 0)

    def outputs_at(level: float, rows: slice) -> Tensor:
        return _run_from(probe, rows, 0, torch.add(clean[rows], added[rows], alpha=level))

    errors_at = _one_by_one(probe, _in_parts(probe, outputs_at))
    return _curve(probe, "input_noise", probe.settings.levels, errors_at)


@measure(*_columns("ablation", "ablation"), needs=("sites",))
def measure_ablation(probe: Probe) -> dict[str, Float[Tensor, " member"]]:
    """Return `error_under/ablation`: a share of each site's units silenced; levels are shares.

    `probes.repeats` sets of units are drawn, and the evaluation points shared out over them.
    """
    repeats = probe.settings.repeats
    keys = _repeated_keys(fold_in(probe.keys, Stream.ABLATION), repeats)
    network = probe.network.repeated(repeats)
    structure = network.network
    order = ablation_order(structure, keys)
    name, fractions = "ablation", probe.settings.ablated_fractions
    inputs = _in_shares(probe.samples.inputs.transpose(1, 2), repeats)
    native = under_ablation(probe, network, lambda fraction: _all_kept(order, fraction), inputs)
    if native is not None:
        return _curve(probe, name, fractions, _all_at_once(probe, native), squared=False)
    # Where a pass can be cut behind the first site, the activity there is the same at every share.
    begin = min(1, structure.num_stages - 1) if structure.sites else 0
    read = _in_shares(_read_by_stage(probe, begin), repeats)

    def outputs_at(fraction: float) -> Tensor:
        if not structure.sites:
            return probe.clean.outputs
        silence = ablate_units(fraction, order)
        values = silence(structure.sites[0].name, read) if begin == 1 else read
        sums = structure.stage_sums(network.parameters, begin, values)
        outputs = structure.run_from(network.parameters, begin, sums, silence)
        return out_of_shares(probe, outputs.transpose(1, 2)).transpose(1, 2)

    return _curve(probe, name, fractions, _one_by_one(probe, outputs_at), squared=False)


def _under_law(
    probe: Probe, name: str, kind: ActivityNoise, gains: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return error under noise of one law; `gains` multiply its standard deviation, by site and member."""
    structure = probe.network.network
    if not structure.sites:
        return _curve(probe, name, probe.settings.levels, _one_by_one(probe, lambda _: probe.clean.outputs))
    native = under_law(probe, kind, gains)
    if native is not None:
        return _curve(probe, name, probe.settings.levels, _all_at_once(probe, native))
    numbers = {site.name: number for number, site in enumerate(structure.sites)}
    drawn: dict[tuple[str, int], Tensor] = {}

    def draws_at(place: str, values: Tensor, visit: int, rows: slice) -> Tensor:
        # The same at every level. Where they are asked for in parts, they are drawn for all members at the first.
        if (place, visit) not in drawn:
            drawn[place, visit] = _draws(probe, noise_keys(probe, kind), numbers[place], values, visit)
        return drawn[place, visit][rows]

    def gained(place: str, values: Tensor, rows: slice) -> Tensor:
        return values if gains is None else gains[place][rows, None, None] * values

    def perturb(level: float, rows: slice) -> Tap:
        def add_noise(place: str, values: Tensor, visit: int) -> Tensor:
            if place not in numbers:
                return values
            noise = unit_noise(kind, values, draws_at(place, values, visit, rows))
            return values + level * gained(place, noise, rows)

        return by_visit(add_noise)

    if structure.num_stages == 1:
        begin, sums, added = 0, _clean_sums(probe, 0), None
    else:
        # At every level the first site has the same activity. So its noise is drawn once, and what it adds to the sums
        # of the next stage is proportional to the level.
        begin, sums = 1, _clean_sums(probe, 1)
        first = probe.once(_sums_of_first_noise, kind)
        added = gained(structure.sites[0].name, first, slice(None))

    def outputs_at(level: float, rows: slice) -> Tensor:
        changed = sums[rows] if added is None else torch.add(sums[rows], added[rows], alpha=level)
        return _run_from(probe, rows, begin, changed, perturb(level, rows))

    return _curve(probe, name, probe.settings.levels, _one_by_one(probe, _in_parts(probe, outputs_at)))


def _sums_of_first_noise(probe: Probe, kind: ActivityNoise) -> Tensor:
    """Return what noise of level 1 at the first site adds to the sums of the stage behind it."""
    structure, parameters, activity = probe.network.network, probe.network.parameters, probe.activities()[0]
    keys = noise_keys(probe, kind)

    def added_by(rows: slice) -> Tensor:
        noise = unit_noise(kind, activity[rows], _draws(probe, keys[rows], 0, activity))
        return structure.stage_sums(parameters[rows], 1, noise, biased=False).transpose(1, 2)

    return outputs_in_parts(structure, len(keys), activity.shape[2], added_by).transpose(1, 2)


def _read_by_stage(probe: Probe, stage: int) -> Tensor:
    """Return the clean values that a stage reads: (member, unit, batch)."""
    return probe.samples.inputs.transpose(1, 2) if stage == 0 else probe.activities()[stage - 1]


def _clean_sums(probe: Probe, stage: int) -> Tensor:
    """Return the clean sums of a stage, as the forward pass computed them: (member, unit, batch)."""
    structure = probe.network.network
    return structure.recorded_sums(probe.clean, stage, probe.samples.inputs)


def _added_sums(probe: Probe, stage: int, added: Tensor) -> Tensor:
    """Return what values added to those that a stage reads add to its sums."""
    return probe.network.network.stage_sums(probe.network.parameters, stage, added, biased=False)


def _run_from(probe: Probe, rows: slice, stage: int, sums: Tensor, tap: Tap | None = None) -> Tensor:
    """Return the outputs of some members, whose sums at a stage are given."""
    return probe.network.network.run_from(probe.network.parameters[rows], stage, sums, tap)


def _in_parts(probe: Probe, outputs_at: Callable[[float, slice], Tensor]) -> Callable[[float], Tensor]:
    """Return a function of the level that gives all members' outputs, of one that gives those of some."""
    members, batch = probe.clean.outputs.shape[:2]
    return lambda level: outputs_in_parts(
        probe.network.network, members, batch, lambda rows: outputs_at(level, rows)
    )


def _draws(probe: Probe, keys: Tensor, site: int, activity: Tensor, visit: int = 0) -> Tensor:
    return normal_draws(probe, visit_keys(site_keys(keys, site), visit), *activity.shape[1:])


_ErrorsAt = Callable[[Sequence[float]], Float[Tensor, "member level"]]


def _one_by_one(probe: Probe, outputs_at: Callable[[float], Tensor]) -> _ErrorsAt:
    """Return errors by levels, where outputs are held for one level at a time."""
    return lambda levels: torch.stack([_mean_errors(probe, outputs_at(level)) for level in levels], dim=1)


def _all_at_once(probe: Probe, outputs_at: OutputsAt) -> _ErrorsAt:
    """Return errors by levels, where outputs are held for all of them."""

    def errors_at(levels: Sequence[float]) -> Tensor:
        errors: Tensor = _mean_errors(probe, outputs_at(levels).transpose(1, 2))
        return errors.unflatten(0, (-1, len(levels)))

    return errors_at


def _mean_errors(probe: Probe, outputs: Float[Tensor, "row batch out_features"]) -> Float[Tensor, " row"]:
    return module_errors(probe.task, outputs, probe.samples.targets, probe.kernels).mean(dim=1)


def _clean_errors(probe: Probe) -> Float[Tensor, " member"]:
    return _mean_errors(probe, probe.outputs)


def _curve(
    probe: Probe, name: str, levels: Sequence[float], errors_at: _ErrorsAt, squared: bool = True
) -> dict[str, Tensor]:
    """Return error at each level, and the tolerance."""
    if not levels:
        return {}
    errors, clean = errors_at(levels), probe.once(_clean_errors)
    by_level = zip(levels, errors.unbind(dim=1), strict=True)
    tolerated = tolerance(levels, errors, clean, probe.settings.error_floor, squared)
    return {f"error_under/{name}@{level:g}": error for level, error in by_level} | {
        f"robustness/{name}/tolerance": tolerated
    }


def _repeated_keys(keys: Tensor, repeats: int) -> Tensor:
    """Return keys of (member, repeat), flattened: a member's repeats lie side by side."""
    numbers = torch.arange(repeats, dtype=torch.int32, device=keys.device).repeat(len(keys))
    return fold_in(keys.repeat_interleave(repeats, dim=0), numbers)


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
