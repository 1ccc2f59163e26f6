"""How long graph measures take, and how often untrained networks are beyond their nulls; prints one line for each.

    python scripts/graph_measures.py time [NETWORKS] [PROCESSES]
    python scripts/graph_measures.py calibrate [NETWORKS] [UNITS ...]

`time` takes all measures of configs/probes/graphs.yaml, as they are configured, of networks with 48 units.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml
from given_overrides import answer

from modulab.arguments import ArgumentParser, whole_number
from modulab.config.settings import Probes
from modulab.errors import ConfigError
from modulab.metrics.graphs.kinds import KINDS
from modulab.metrics.graphs.known import KnownModules
from modulab.metrics.probe import make_probe
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.networks.perceptron import Perceptron, architecture_mask, initial_parameters
from modulab.partition import Partition
from modulab.schema import read_settings
from modulab.streams import member_keys
from modulab.tasks.base import Task

CONFIGS = Path(__file__).parents[1] / "configs"
UNITS = 48
SCORES = [
    "modularity",
    "layered_modularity",
    "normalised_cut",
    "codelength_saving",
    "description_length_saving",
]


def settings(**changes: Any) -> Probes:
    """Return the settings of the default probes with changes."""
    config = yaml.safe_load((CONFIGS / "probes" / "default.yaml").read_text())
    return read_settings({**config, **changes}, "probes", Probes)


def task() -> Task:
    """Return the regression task with two modules."""
    return read_settings(yaml.safe_load((CONFIGS / "task" / "regression.yaml").read_text()), "task", Task)


def networks(seeds: range, units: int, density: float = 1.0) -> NetworkPopulation:
    """Return untrained dense networks; below a density of 1, weights are 0 at random."""
    shape = Perceptron(2, (units,), 2, "relu")
    keys = member_keys(seeds)
    mask = architecture_mask(shape, Partition(2, (0, 1), (0, 1)), [1.0] * len(seeds), keys)
    parameters = initial_parameters(shape, mask, torch.full((len(seeds),), 2.0), keys)
    draws = torch.Generator().manual_seed(units)
    kept = torch.rand(parameters.shape, generator=draws) < density
    return NetworkPopulation(shape, parameters * kept)


def take_all(seeds: range) -> int:
    """Take all graph measures of networks of these seeds."""
    torch.set_num_threads(1)
    measures = yaml.safe_load((CONFIGS / "probes" / "graphs.yaml").read_text())["measures"]
    found = measure_population(
        task(), networks(seeds, UNITS), member_keys(seeds), settings(measures=measures)
    )
    return len(found)


def time_measures(count: int, processes: int) -> None:
    """Print how long all graph measures take for a number of networks, shared out over processes."""
    size = -(-count // (4 * processes))
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        list(pool.map(take_all, [range(2)] * processes))  # starts them
        begun, spent = time.perf_counter(), os.times()
        [values] = set(pool.map(take_all, parts))
        wall = time.perf_counter() - begun
    ended = os.times()
    cpu = ended.children_user + ended.children_system - spent.children_user - spent.children_system
    print(f"{count} networks of {UNITS} units, {values} values each: {wall:.0f} s with {processes} processes")
    print(f"{cpu:.0f} s of CPU, the start of {processes} processes included")


def calibrate(count: int, sizes: list[int]) -> None:
    """Print in how many of 100 untrained networks a score has a z of 2 or more, or a p of .05 or less, at most."""
    for units in sizes:
        for density in (1.0, 0.5):
            for graph, kind in KINDS.items():
                scores = [each for each in SCORES if kind.directed or each != "layered_modularity"]
                nulls = [each for each in kind.nulls if each != "partition"]
                measure = KnownModules(graph=graph, scores=scores, nulls=nulls, shuffles=50)  # type: ignore[arg-type]
                population = networks(range(count), units, density)
                probe = make_probe(task(), population, member_keys(range(count)), settings(num_samples=128))
                with torch.no_grad():
                    found = measure.take(probe)
                for null in nulls:
                    columns = [f"graph/{graph}/{score}/{null}" for score in scores]
                    high = max(float((found[f"{each}_z"] >= 2).double().mean()) for each in columns)
                    small = max(float((found[f"{each}_p"] <= 0.05).double().mean()) for each in columns)
                    print(
                        f"{units} units, density {density:g}, {graph}, {null}: "
                        f"z of 2 in {100 * high:.1f} of 100, p of .05 in {100 * small:.1f}",
                        flush=True,
                    )


def main() -> int:
    """Do what is asked."""
    parser = ArgumentParser(prog="scripts/graph_measures.py", description=__doc__.splitlines()[0])
    parser.add_argument("what", metavar="time|calibrate", help="which numbers to print")
    parser.add_argument(
        "numbers",
        type=whole_number,
        nargs="*",
        metavar="NUMBER",
        help="time: networks and processes; calibrate: networks, then units",
    )
    options = parser.parse_args()
    numbers: list[int] = options.numbers
    if options.what == "time" and len(numbers) <= 2:
        time_measures(*(numbers + [1000, 2][len(numbers) :]))
    elif options.what == "calibrate":
        calibrate(numbers[0] if numbers else 200, numbers[1:] or [20, 48, 100])
    else:
        raise ConfigError(
            f"{' '.join(map(str, (options.what, *numbers)))}: cannot be read. {__doc__}".rstrip()
        )
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
