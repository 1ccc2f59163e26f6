"""Outputs of perturbed networks by native code, for the measures of `robustness`: all levels of a member in succession.

Functions return None where there is no native code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Float64, Int32
from torch import Tensor

from modulab.metrics.native import Run
from modulab.metrics.probe import Probe, few_in_cache, rows_in_cache
from modulab.metrics.row_functions import (
    ActivityNoise,
    NoisyOutputs,
    Normals,
    Outputs,
    OutputsFrom,
    SilencedOutputs,
    SiteActivity,
)
from modulab.networks.base import NetworkPopulation
from modulab.noise import site_keys, visit_keys
from modulab.streams import Stream, drawn_normals, fold_in

OutputsAt = Callable[[Sequence[float]], Float[Tensor, "member_and_level out_features batch"]]
"""Returns the outputs of all members at all levels."""


def noise_keys(probe: Probe, kind: ActivityNoise) -> Int32[Tensor, "member 2"]:
    """Return the members' keys of perturbations of activity."""
    return fold_in(fold_in(probe.keys, Stream.EVALUATION_NOISE), int(kind))


def normal_draws(
    probe: Probe, keys: Int32[Tensor, "key 2"], rows: int, columns: int
) -> Float[Tensor, "key rows columns"]:
    """Return standard normal draws, a matrix for each key, by native code if there is any."""
    run = probe.kernels.compiled(Normals(rows, columns), keys)
    return drawn_normals(keys, rows, columns) if run is None else run(keys)


def under_law(probe: Probe, kind: ActivityNoise, gains: Mapping[str, Tensor] | None) -> OutputsAt | None:
    """Return outputs under noise of one law at every site; `gains` multiply its deviation, by site and member."""
    structure = probe.network.network
    run = _noisy_pass(probe, kind)
    if run is None:
        return None

    def scales_at(levels: Sequence[float]) -> Float[Tensor, "member level site"]:
        ones = torch.ones(len(probe.keys))
        of_sites = [ones if gains is None else gains[site.name] for site in structure.sites]
        return torch.tensor(levels)[:, None] * torch.stack(of_sites, dim=1)[:, None]

    def one_hidden_layer(levels: Sequence[float]) -> Tensor:
        clean, added = probe.outputs.transpose(1, 2), probe.once(_added_by_noise, kind)
        return (clean[:, None] + scales_at(levels)[..., None] * added[:, None]).flatten(0, 1)

    def any_network(levels: Sequence[float]) -> Tensor:
        scales = scales_at(levels)
        return torch.cat(
            [
                run(rows, scales[rows].flatten(0, 1), _site_draws(probe, kind, rows))
                for rows in rows_in_cache(probe)
            ]
        )

    return one_hidden_layer if structure.is_layered and structure.num_stages == 2 else any_network


def _noisy_pass(
    probe: Probe, kind: ActivityNoise
) -> Callable[[slice, Tensor, Sequence[Tensor]], Float[Tensor, "row out_features batch"]] | None:
    """Return outputs under noise of one law, of some members, by the scales and the draws at every site."""
    parameters, inputs = probe.network.parameters, probe.samples.inputs.transpose(1, 2)
    sites, batch = probe.network.network.sites, inputs.shape[2]
    like = [parameters.new_empty(0, site.visits, site.units, site.positions * batch) for site in sites]
    scales = parameters.new_empty(0, len(sites))
    run = probe.kernels.compiled(NoisyOutputs(probe.network.network, kind), parameters, inputs, scales, *like)
    if run is None:
        return None
    return lambda rows, scales, draws: run(parameters[rows], inputs[rows], scales, *draws)


def _added_by_noise(probe: Probe, kind: ActivityNoise) -> Float[Tensor, "member out_features batch"]:
    """Return what noise of level 1 adds to the outputs of a network of one hidden layer.

    y = W (a + level n) + b, where the noise n of level 1 depends on a alone, so each level adds level W n.
    """
    run = _noisy_pass(probe, kind)
    assert run is not None
    noisy = [
        run(rows, torch.ones(len(probe.keys[rows]), 1), _site_draws(probe, kind, rows))
        for rows in rows_in_cache(probe)
    ]
    clean = probe.outputs.transpose(1, 2)
    # To an output that has overflowed nothing is added, so it stays infinite.
    return torch.where(clean.isfinite(), torch.cat(noisy) - clean, 0.0)


def _site_draws(
    probe: Probe, kind: ActivityNoise, rows: slice
) -> list[Float[Tensor, "member _visit _unit _batch"]]:
    """Return some members' draws of noise of one law at every site."""
    sites, batch = probe.network.network.sites, probe.samples.inputs.shape[1]
    found: list[Tensor] = []
    for site, keys in zip(sites, probe.once(_keys_at_sites, kind), strict=True):
        own = keys[rows].flatten(0, 1)
        drawn = normal_draws(probe, own, site.units, site.positions * batch)
        found.append(drawn.unflatten(0, (-1, site.visits)))
    return found


def _keys_at_sites(probe: Probe, kind: ActivityNoise) -> list[Int32[Tensor, "member _visit 2"]]:
    """Return the keys of perturbations of activity at each visit to each site."""
    keys = probe.once(noise_keys, kind)
    own = [site_keys(keys, number) for number in range(len(probe.network.network.sites))]
    return [
        torch.stack([visit_keys(each, visit) for visit in range(site.visits)], dim=1)
        for each, site in zip(own, probe.network.network.sites, strict=True)
    ]


def under_counts(probe: Probe) -> OutputsAt | None:
    """Return outputs under Poisson counts, of networks whose sites are visited once, one site after another."""
    structure, parameters, inputs = probe.network.network, probe.network.parameters, probe.samples.inputs
    sites, given = structure.sites, (parameters, inputs.transpose(1, 2))
    if not sites or any(site.visits != 1 for site in sites):
        return None
    like = [parameters.new_empty(0, site.units, site.positions * inputs.shape[1]) for site in sites]
    if not counts_natively(probe):
        return None
    names = tuple(site.name for site in sites)
    records: list[Run] = []
    for number, name in enumerate(names):
        activity = SiteActivity(structure, name, names[:number])
        record = probe.kernels.compiled(activity, *given, *like[:number])
        if record is None:
            return None
        records.append(record)
    run = probe.kernels.compiled(OutputsFrom(structure, names), *given, *like)
    if run is None:
        return None

    def outputs_of(rows: slice, windows: Float64[Tensor, " level"]) -> Tensor:
        some, counted = [each[rows] for each in given], list[Tensor]()
        draws = _site_draws(probe, ActivityNoise.POISSON_COUNTS, rows)
        for record, scores in zip(records, draws, strict=True):
            activity = record(*some, *counted)
            # At the first site, activity is the same at all levels.
            own = windows.repeat(len(scores))[:, None] if counted else windows[None]
            found = probe.kernels.count_rates(activity, own, scores[:, 0])
            assert found is not None
            counted.append(found.flatten(0, 1))
        return run(*some, *counted)

    def outputs_at(levels: Sequence[float]) -> Tensor:
        windows = count_windows(levels)
        return torch.cat([outputs_of(rows, windows) for rows in rows_in_cache(probe, len(levels))])

    return outputs_at


def counts_natively(probe: Probe) -> bool:
    """Return whether Poisson counts are native code."""
    none = probe.network.parameters[:0]
    return probe.kernels.count_rates(none, count_windows([])[None], none) is not None


def count_windows(levels: Sequence[float]) -> Float64[Tensor, " level"]:
    """Return the window of Poisson counts at each level, 1 / level^2."""
    return torch.tensor([1 / (level * level) for level in levels], dtype=torch.float64)


def under_counts_at_sites(
    probe: Probe,
    outputs_by_level: Callable[[Probe], Callable[[float], Float[Tensor, "member batch out_features"]]],
) -> OutputsAt | None:
    """Return outputs under Poisson counts of any network: only counts are native code, passes are by torch."""
    if not counts_natively(probe):
        return None

    def outputs_at(levels: Sequence[float]) -> Tensor:
        parts: list[Tensor] = []
        # Passes by torch hold activity several times, and products of one matrix round otherwise than those of many.
        for rows in rows_in_cache(probe, times=4, least=2):
            outputs_of = outputs_by_level(probe.of(rows))
            outputs = [outputs_of(level).transpose(1, 2) for level in levels]
            parts.append(torch.stack(outputs, dim=1).flatten(0, 1))
        return torch.cat(parts)

    return outputs_at


def under_input_noise(probe: Probe, draws: Float[Tensor, "member batch in_features"]) -> OutputsAt | None:
    """Return outputs where draws times the level are added to inputs."""
    parameters, inputs = probe.network.parameters, probe.samples.inputs.transpose(1, 2)
    run = probe.kernels.compiled(Outputs(probe.network.network), parameters, inputs)
    if run is None:
        return None
    added = draws.transpose(1, 2)

    def outputs_of(rows: slice, levels: Sequence[float]) -> Tensor:
        noisy = [torch.add(inputs[rows], added[rows], alpha=level) for level in levels]
        return run(parameters[rows], torch.stack(noisy, dim=1).flatten(0, 1))

    def outputs_at(levels: Sequence[float]) -> Tensor:
        parts = few_in_cache(len(inputs), len(levels) * inputs[0].numel())
        return torch.cat([outputs_of(rows, levels) for rows in parts])

    return outputs_at


def under_weight_noise(
    probe: Probe,
    networks_at: Callable[[float, slice], NetworkPopulation],
    inputs: Float[Tensor, "member_and_repeat in_features share"],
) -> OutputsAt | None:
    """Return outputs of the networks of each level on shares of the points; networks are made for some rows."""
    like = probe.network.parameters.new_empty(0, probe.network.network.num_parameters)
    run = probe.kernels.compiled(Outputs(probe.network.network), like, inputs)
    if run is None:
        return None

    def outputs_at(levels: Sequence[float]) -> Tensor:
        # A few members and one level at a time, because parameters may take more memory than outputs.
        repeats, members = probe.settings.repeats, len(probe.keys)
        outputs: list[Tensor] = []
        for some in few_in_cache(members, 3 * repeats * probe.network.network.num_parameters):
            rows = slice(some.start * repeats, some.stop * repeats)
            own = [run(networks_at(level, rows).parameters, inputs[rows]) for level in levels]
            outputs.append(out_of_shares(probe, torch.stack(own, dim=1).flatten(0, 1), len(levels)))
        return torch.cat(outputs)

    return outputs_at


def under_ablation(
    probe: Probe,
    repeated: NetworkPopulation,
    kept_at: Callable[[float], Float[Tensor, "member_and_repeat unit"]],
    inputs: Float[Tensor, "member_and_repeat in_features share"],
) -> OutputsAt | None:
    """Return outputs on shares of the points where activity is multiplied by what `kept_at` gives, 1 or 0."""
    like = repeated.parameters.new_empty(0, repeated.network.total_units)
    run = probe.kernels.compiled(SilencedOutputs(repeated.network), repeated.parameters, inputs, like)
    if run is None:
        return None

    def outputs_at(levels: Sequence[float]) -> Tensor:
        kept = torch.stack([kept_at(level) for level in levels], dim=1).flatten(0, 1)
        return out_of_shares(probe, run(repeated.parameters, inputs, kept), len(levels))

    return outputs_at


def out_of_shares(
    probe: Probe, outputs: Float[Tensor, "member_repeat_and_level out_features share"], levels: int = 1
) -> Float[Tensor, "member_and_level out_features batch"]:
    """Return outputs of shares of the points one after another, without those that stood in for missing points."""
    shares = outputs.unflatten(0, (-1, probe.settings.repeats, levels))
    whole = shares.permute(0, 2, 3, 1, 4).flatten(3)
    return whole[..., : probe.samples.inputs.shape[1]].flatten(0, 1)
