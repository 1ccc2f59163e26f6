"""Compare modulab's speed with what was recorded: scripts/benchmark check, in about 20 seconds.

Native steps and the limit kernel, a fixed loop in C++, take turns in one process on one thread. Their ratio depends
little on the machine and on what else it is doing. It fails where training has lost a third of the speed, relative to
the kernel, of the latest record in docs/benchmarks.

The reference workload has no products between hidden units, so those are timed beside torch's. It fails where they have
less than a third of torch's speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark_contenders.history import read_records, speed_of_limit
from benchmark_contenders.limit import compare, in_turns
from modulab.arguments import ArgumentParser
from modulab.training.engine import keep_freed_memory
from modulab.training.native.kernels import NativeKernels

MOST_LOST = 1 / 3
LEAST_OF_TORCHS = 1 / 3
_ATTEMPTS = 3
"""Other work on the machine may disturb one measurement."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="scripts/benchmark check", description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of each network in a repeat")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    recorded = speed_of_limit(read_records()[-1])
    torch.set_num_threads(1)
    keep_freed_memory()
    for attempt in range(_ATTEMPTS):
        found = speed_of_limit(_measure(options.steps, options.repeats))
        for workload, share in found.items():
            print(f"{workload:16}{share:6.2f} of the limit's speed; recorded {recorded[workload]:.2f}")
        products = speed_of_products(options.repeats)
        for name, share in products.items():
            print(f"{name:16}{share:6.2f} of torch's speed")
        slow = slower(found, recorded) + [name for name, share in products.items() if share < LEAST_OF_TORCHS]
        if not slow:
            return 0
        if attempt + 1 < _ATTEMPTS:
            print(f"measuring again: {', '.join(slow)} lost more than allowed")
    print("Training has become slower. `scripts/benchmark limit` times it by engine.")
    return 1


def slower(found: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """Return the workloads whose speed has fallen by more than a third."""
    return [workload for workload, share in found.items() if share < (1 - MOST_LOST) * recorded[workload]]


@dataclass(frozen=True)
class Product:
    """A product of two matrices for each member, as a row function; the terms of sums lie side by side or apart."""

    terms_side_by_side: bool

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the product."""
        return torch.bmm(left, right.transpose(1, 2) if self.terms_side_by_side else right)


_PRODUCTS: dict[str, tuple[Product, tuple[int, int], tuple[int, int]]] = {
    "products": (Product(terms_side_by_side=False), (48, 48), (48, 256)),
    "products of rows": (Product(terms_side_by_side=True), (48, 256), (48, 256)),
}
"""Products of a hidden layer of 48 units at 256 points, in the forward pass and for gradients of weights."""


def speed_of_products(repeats: int, members: int = 64) -> dict[str, float]:
    """Return the speed of native products as a share of torch's."""
    found: dict[str, float] = {}
    for name, (product, left_shape, right_shape) in _PRODUCTS.items():
        left, right = torch.randn(members, *left_shape), torch.randn(members, *right_shape)
        run = NativeKernels().compiled(product, left, right)
        assert run is not None
        turns: dict[str, Callable[[], object]] = {
            "torch": lambda product=product, left=left, right=right: product(left, right),
            "native": lambda run=run, left=left, right=right: run(left, right),
        }
        seconds = in_turns(turns, repeats)
        found[name] = seconds["torch"] / seconds["native"]
    return found


def _measure(steps: int, repeats: int) -> dict[str, Any]:
    rows = [compare(noise, ["native"], steps, repeats) for noise in (False, True)]
    return {"limit": {row["workload"]: {name: row[name] for name in ("limit", "native")} for row in rows}}
