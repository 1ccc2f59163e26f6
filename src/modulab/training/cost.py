"""Estimated times of training and measuring members, from rates that were measured once.

Rates are of one core of a shared AMD EPYC, in seconds per unit of hidden activity (a unit at a point) and
step; the table in docs/performance.md is their source. They choose an engine and fill a dry run's estimate. They hold
for units that read a few values each. Wide layers take the time of their products, which is about the same for all
engines, and so plays no part in the choice of one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modulab.config.settings import Member, Probes
from modulab.metrics.measure import find_measures
from modulab.networks.base import Network
from modulab.training.program import Program, program_of


@dataclass(frozen=True)
class Rates:
    """The time of a step: a fixed part per program, and a part in proportion to activity."""

    fixed: float
    noisy: float
    noiseless: float

    @property
    def packed(self) -> Rates:
        """Return the rates of networks among so many others that the fixed part does not count."""
        return replace(self, fixed=0.0)


EAGER = Rates(fixed=3e-3, noisy=5.8e-8, noiseless=1.9e-8)
COMPILED = Rates(fixed=5e-5, noisy=4.1e-9, noiseless=1.5e-9)
NATIVE = Rates(fixed=2e-6, noisy=2.4e-9, noiseless=6e-10)
RATES = {"eager": EAGER, "compiled": COMPILED, "native": NATIVE, "native_measures": NATIVE}
"""The rates of each engine."""
_SECONDS_PER_PRODUCT = 8e-11
"""Time of a product of a weight and a value, with its derivatives; with layers of 128 to 625 inputs, 6e-11 to 9e-11."""
_PRODUCTS_WITHIN_RATES = 8
"""Time for each value at a site."""
_NATIVE_COMPILE_SECONDS = 1.5
_NATIVE_MEASURES_COMPILE_SECONDS = 3.0
"""Time for each network: passes, noise and draws are some ten functions."""
_SAVED_BY_NATIVE_MEASURES = 1.5e-7
"""Seconds for each value at a site and evaluation point, all measures and curves of `probes=default` together."""
_COMPILE_SECONDS = 30.0
_COMPILE_SECONDS_PER_FURTHER_PROGRAM = 16.0
_EXPECTED_USES = 3
"""How often a compiled step is expected to be used: it is kept, and few programs are trained only once."""
SELF_TRAINED_STEP_SECONDS = 1e-3
"""The order of magnitude of a step of a LightningModule, whose size is not known before it is built."""
_MEASURE_SECONDS_PER_POINT = 9e-6
_THREAD_EFFICIENCY = 0.85


def step_seconds(members: Sequence[Member], rates: Rates, threads: int = 1) -> float:
    """Return about how long the training steps of these members take."""
    points: defaultdict[tuple[Program, int], int] = defaultdict(int)
    for member, count in _counted(members):
        points[program_of(member), member.training.steps] += count * member.training.batch_size
    speedup = 1 + _THREAD_EFFICIENCY * (threads - 1)
    seconds = 0.0
    for (program, steps), batch in points.items():
        network = program.network
        of_unit = (rates.noisy if program.noise else rates.noiseless) / speedup
        products = max(0, network.step_products - _PRODUCTS_WITHIN_RATES * network.step_units)
        seconds += steps * max(rates.fixed, batch * network.step_units * of_unit)
        seconds += steps * batch * products * _SECONDS_PER_PRODUCT / speedup
    return seconds


def compile_seconds(members: Sequence[Member], engine: str) -> float:
    """Return about how long compiling the steps of these members takes, where none is cached."""
    programs = {program_of(member) for member, _ in _counted(members)}
    if engine == "native":
        return _NATIVE_COMPILE_SECONDS * len(programs)
    return _COMPILE_SECONDS + _COMPILE_SECONDS_PER_FURTHER_PROGRAM * (len(programs) - 1)


def measure_seconds(members: Sequence[Member]) -> float:
    """Return about how long measuring these members after training takes, on one thread."""
    alike: Counter[Probes] = Counter()
    for member, count in _counted(members):
        alike[member.probes] += count
    points = sum(count * probes.num_samples for probes, count in alike.items())
    beyond = sum(
        count * sum(measure.seconds(probes) for measure in find_measures(probes).values())
        for probes, count in alike.items()
    )
    return points * _MEASURE_SECONDS_PER_POINT + beyond


def _counted(members: Sequence[Member]) -> list[tuple[Member, int]]:
    """Return each object once, and how often it is there: plans give one example for all members of a condition."""
    found = {id(member): member for member in members}
    return [(found[name], count) for name, count in Counter(map(id, members)).items()]


def compiling_pays(members: Sequence[Member], engine: str) -> bool:
    """Return whether an engine's steps save more time than it takes to compile them, over all uses of them.

    Whether they are there already does not count, nor does the number of threads: the choice, and with it the last
    bits of results, would depend on what was trained here before, and on the machine.
    """
    saved = step_seconds(members, EAGER) - step_seconds(members, RATES[engine])
    return _EXPECTED_USES * saved > compile_seconds(members, engine)


def native_measures_pay(members: Sequence[Member]) -> bool:
    """Return whether native measures save more time than it takes to compile them, over all uses of them.

    As for `compiling_pays`, what is there already does not count.
    """
    saved, networks = 0.0, set[Network]()
    for member, count in _counted(members):
        network = program_of(member).network
        networks.add(network)
        saved += count * member.probes.num_samples * network.step_units * _SAVED_BY_NATIVE_MEASURES
    return _EXPECTED_USES * saved > _NATIVE_MEASURES_COMPILE_SECONDS * len(networks)
