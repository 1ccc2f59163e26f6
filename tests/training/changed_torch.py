"""Trains on a torch whose private interfaces have changed, in a process of its own: shape checks would be compiled.

Prints one JSON object of findings, which test_torch_private.py judges.
"""

from __future__ import annotations

import json

import torch

from modulab.progress import ProgressReport
from modulab.training.execution import Execution
from modulab.training.fit import fit_population
from tests.members import make_member
from tests.training.fitting import trained_parameters


def main() -> None:
    torch.set_num_threads(1)
    del torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors  # pyright: ignore[reportAttributeAccessIssue]
    members = [
        make_member(
            {"noise": "poisson"}, seed=seed, noise__scale=0.2, architecture__width=8, training__batch_size=16,
            training__steps=30, training__curve_every=10, data__num_samples=(16, 64)[seed % 2],
        )
        for seed in range(20)
    ]  # fmt: skip
    executions = {
        name: Execution("compiled", torch.device("cpu"), asked_threads=2, engine_may_change=name == "auto")
        for name in ("compiled", "auto")
    }
    results = {
        name: fit_population(members, execution, None, ProgressReport("off", 20, 600))
        for name, execution in executions.items()
    }
    # Whatever torch compiled so far must do: not for the sizes of some blocks alone.
    torch.compiler.set_stance("fail_on_recompile")
    packed = trained_parameters(members, "compiled")
    alone = {index: trained_parameters([members[index]], "compiled")[0] for index in (0, 7, 19)}
    findings = {
        "engines": {name: result.engines[0] for name, result in results.items()},
        "failures": {index: reason for each in results.values() for index, reason in each.failures.items()},
        "compiled from eager": float((packed - trained_parameters(members)).abs().max()),
        "changed by company": [
            index for index, value in alone.items() if not torch.equal(value, packed[index])
        ],
        "changed by threads": not torch.equal(packed, trained_parameters(members, "compiled", threads=2)),
    }
    print(json.dumps(findings))


main()
