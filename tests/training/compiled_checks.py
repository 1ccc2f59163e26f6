"""Checks of the compiled engine, run in a process of their own: shape checking would be compiled as well.

Prints one JSON object of findings, which test_compiled.py judges.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch

from modulab.config.settings import Member
from modulab.training.engine import accelerated_step, keep_freed_memory, run_chunk
from modulab.training.program import program_of
from tests.members import make_member
from tests.training.fitting import prepared_learner, trained_parameters


def packed_members(
    activation: str, laws: Sequence[str], width: int, batch_size: int, optimiser: str, deep: str | None = None
) -> list[Member]:
    """Return 40 members of one program, varied in everything else."""
    return [
        make_member(
            {"noise": laws[index % len(laws)]},
            seed=index,
            noise__scale=0.1 + 0.1 * (index % 4),
            architecture__activation=activation,
            architecture__width=width,
            **_depth(deep),
            architecture__cross_connections=(1.0, 0.0)[index % 2],
            data__num_samples=(16, 4096, None)[index % 3],
            training__learning_rate=(1e-3, 3e-3)[index % 2],
            training__optimiser=optimiser,
            training__steps=100,
            training__batch_size=batch_size,
            training__curve_every=50,
        )
        for index in range(40)
    ]


def _depth(deep: str | None) -> dict[str, Any]:
    """Return the keys of one hidden layer or, `deep`, of two, of which some are noisy."""
    return {} if deep is None else {"architecture__depth": 2, "noise__sites": deep}


def changed_by_hurried_threads() -> list[int]:
    """Return the members that end otherwise where many threads, changing places all the time, call a step at once."""
    members = [
        make_member(
            {"noise": "gaussian"}, seed=index, noise__scale=0.1, architecture__activation="tanh",
            architecture__width=17, data__num_samples=64, training__batch_size=37, training__steps=1000,
            training__curve_every=1000, **_depth("first"),
        )
        for index in range(300)
    ]  # fmt: skip
    alone = trained_parameters(members, "compiled")
    sys.setswitchinterval(1e-6)
    together = trained_parameters(members, "compiled", threads=8)
    return (alone != together).any(dim=1).nonzero().flatten().tolist()


def apart_by_torch_compile() -> list[float]:
    """Return how far members are trained apart by the steps of torch.compile, which accelerators run.

    Their programs differ in numbers, the layers that are noisy, width and batch size, which torch must not take for
    variables. They are traced as ever, and then run operation by operation.
    """
    compile_ = torch.compile
    torch.compile = lambda model, fullgraph, options: compile_(
        model, fullgraph=fullgraph, backend="aot_eager"
    )
    apart: list[float] = []
    for sites, width, batch_size in (
        ("all", 8, 16), ("first", 8, 16), ("last", 8, 16), ("last", 9, 24), ("input", 9, 24), ("pre_activation", 9, 24),
    ):  # fmt: skip
        members = [
            make_member(
                {"noise": "gaussian"}, seed=seed, noise__scale=0.2, noise__sites=sites, architecture__depth=2,
                architecture__activation="tanh", architecture__width=width, data__num_samples=64,
                training__batch_size=batch_size, training__steps=20, training__curve_every=20,
            )
            for seed in range(3)
        ]  # fmt: skip
        program = program_of(members[0])
        learner, data = prepared_learner(members)
        step = accelerated_step(program, torch.device("cpu"))
        run_chunk(step, program, learner.blocks[0], members, data.chunk(0))
        apart.append(float((learner.member_parameters() - trained_parameters(members)).abs().max()))
    return apart


def main() -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    findings: dict[str, dict[str, list[float] | int]] = {}
    for activation, laws, width, batch_size, optimiser, deep in (
        ("relu", ("poisson", "gaussian", "multiplicative"), 48, 256, "adam", None),
        ("tanh", ("gaussian",), 17, 37, "adam", "first"),
        # torch's code generator fails on this one where a step writes its update where it reads.
        ("softplus", ("poisson",), 16, 32, "sgd", None),
        ("linear", ("dropout",), 16, 32, "adam", "last"),  # of both signs
    ):
        members = packed_members(activation, laws, width, batch_size, optimiser, deep)
        compiled = trained_parameters(members, "compiled")
        apart = (compiled - trained_parameters(members)).abs().amax(dim=1)
        alone = {index: trained_parameters([members[index]], "compiled")[0] for index in (0, 7, 38, 39)}
        changed = [index for index, value in alone.items() if not torch.equal(value, compiled[index])]
        threaded = trained_parameters(members, "compiled", threads=2)
        findings[activation] = {
            "compiled from eager": apart.tolist(),
            "changed by company": changed,
            "changed by threads": (compiled != threaded).any(dim=1).nonzero().flatten().tolist(),
        }
    findings["torch.compile"] = {"compiled from eager": apart_by_torch_compile()}
    findings["threads in a hurry"] = {"changed by threads": changed_by_hurried_threads()}
    print(json.dumps(findings))


main()
