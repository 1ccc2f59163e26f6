"""The loop that takes all configured measures of a population."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Float64, Int32
from torch import Tensor

from modulab.config.settings import Probes
from modulab.errors import ForeignError, MeasureFailed, foreign_code
from modulab.foreign import own_draws_only
from modulab.metrics.measure import Measure, find_measures, named_values, value_per_member
from modulab.metrics.native import NO_KERNELS, Kernels
from modulab.metrics.probe import BLOCK_BYTES, Asked, Probe, Tell, make_probe, members_at_once, tell_nobody
from modulab.networks.base import NetworkPopulation
from modulab.schema import is_reserved
from modulab.tasks.base import Task

_WORTH_SHARING = 8
"""Members of the smallest block that threads share out: calls take most of the time of smaller ones."""


def measure_population(
    task: Task,
    networks: NetworkPopulation,
    keys: Int32[Tensor, "member 2"],
    settings: Probes,
    mask: Float[Tensor, "member parameter"] | None = None,
    block_bytes: int = BLOCK_BYTES,
    threads: int = 1,
    tell: Tell = tell_nobody,
    asked: Asked | None = None,
    kernels: Kernels = NO_KERNELS,
) -> dict[str, Float64[Tensor, " member"]]:
    """Return every configured measure of members that share a task, by name; no mask: dense networks.

    A network with trained parameters that are not finite, which has diverged, has none: NaN, whatever a measure makes
    of them. Where only some values are `asked` for, measures may leave out others. Parts of measures run as native code
    where there are `kernels`.

    Members are measured a block at a time on each thread, in about `block_bytes` of memory, or what two
    members need if that is more (see `bytes_per_member`; it grows with `probes.num_samples`). Neither blocks
    nor threads change a result.

    Raises: ConfigError where `probes.measures` names something that is not a measure; MeasureFailed where one fails.
    """
    measures = find_measures(settings)
    parameters = networks.parameters
    keys = keys.to(parameters.device)
    masks = torch.ones_like(parameters) if mask is None else mask
    size = members_at_once(networks.network, settings, block_bytes, kernels)

    def measure_block(rows: slice) -> dict[str, Tensor]:
        block = [parameters[rows], keys[rows], masks[rows]]
        members = len(block[0])
        if members == 1:
            # A batched product of one matrix takes another kernel, which rounds otherwise, than one of many.
            block = [values.repeat(2, 1) for values in block]
        block_parameters, block_keys, block_masks = block
        with torch.no_grad():
            network = NetworkPopulation(networks.network, block_parameters)
            probe = make_probe(task, network, block_keys, settings, block_masks, tell, asked, kernels)
            found = take_measures(probe, measures)
        usable = networks.network.trained_parts(block_parameters).isfinite().all(dim=1).cpu()
        return {name: values.where(usable, torch.nan)[:members] for name, values in found.items()}

    cut = _evenly_cut(len(parameters), size, threads)
    if threads > 1 and len(cut) > 1:
        if not kernels.is_ready((task, networks.network, repr(settings))):
            measure_block(slice(0, 2))  # Code may be compiled, and functions are traced on one thread alone.
        with ThreadPoolExecutor(threads) as pool:
            blocks = list(pool.map(measure_block, cut))
    else:
        blocks = [measure_block(rows) for rows in cut]
    return {name: torch.cat([block[name] for block in blocks]) for name in (blocks[0] if blocks else {})}


def _evenly_cut(members: int, largest: int, threads: int) -> list[slice]:
    """Return consecutive parts of about equal size, of at most `largest` members, as many as all threads can share."""
    count = -(-members // largest)
    if threads > 1:
        count = max(count, min(-(-count // threads) * threads, members // _WORTH_SHARING))
    ends = [members * part // count for part in range(count + 1)] if count else []
    return [slice(start, end) for start, end in pairwise(ends)]


def take_measures(probe: Probe, measures: Mapping[str, Measure]) -> dict[str, Float64[Tensor, " member"]]:
    """Return what all measures find, checked: one value per member, no name twice. Raises: MeasureFailed."""
    found: dict[str, Tensor] = {}
    finder: dict[str, str] = {}
    for key, measure in measures.items():
        try:
            with foreign_code():
                values = _take(measure, probe)
        except ForeignError as error:
            raise MeasureFailed(key, str(error)) from error
        for name, value in values.items():
            if name in finder:
                raise MeasureFailed(
                    key,
                    f"a name that is taken: '{name}' is measured by probes.measures.{finder[name]}. Rename it, or set "
                    "one of the two to null.",
                    by_itself=False,
                )
            found[name], finder[name] = value, key
    return found


def _take(measure: Measure, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
    """Return what a measure finds. Raises: ForeignError where that is something else than it must be."""
    values: Any
    before = probe.versions()
    with own_draws_only(measure.code):
        values = measure(probe)
    after = probe.versions()
    changed = next((name for name, version in before.items() if after[name] != version), None)
    if changed is not None:
        raise ForeignError(
            f"a change of probe.{changed} in place, which other measures read. Change a copy, as clone() returns."
        )
    found: dict[str, Tensor] = {}
    for name, value in named_values(values).items():
        if not isinstance(name, str) or not name or is_reserved(name):
            raise ForeignError(
                f"a wrong name: {name!r} is no text, or that of another column of results. Rename it, as in "
                "'my/measure'."
            )
        found[name] = value_per_member(name, value, len(probe.keys))
    return found
