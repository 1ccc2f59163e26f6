"""Members that between them have every value of each setting of a training step, for tests that compare engines."""

from __future__ import annotations

from typing import Any

from modulab.config.settings import Member
from tests.members import make_member

NOISY = {"noise__scale": 0.2}


def members(number: int, choices: dict[str, str] | None = None, **overrides: Any) -> list[Member]:
    sizes = {
        "architecture__width": 9, "training__batch_size": 20, "training__steps": 100, "training__curve_every": 100,
    }  # fmt: skip
    kept = {name: value for name, value in (sizes | overrides).items() if value is not None}
    return [make_member(choices, seed=seed, **kept) for seed in range(number)]


def varied(number: int = 9, curve_every: int = 30) -> list[Member]:
    """Return members of one program that differ in all else."""
    laws = ("gaussian", "poisson", "multiplicative")
    return [
        make_member(
            {"noise": laws[seed % 3]}, seed=seed, noise__scale=0.1 + 0.1 * (seed % 4), architecture__width=9,
            architecture__cross_connections=(1.0, 0.0)[seed % 2], data__num_samples=(16, 100, None)[seed % 3],
            training__learning_rate=(1e-3, 3e-3)[seed % 2], training__steps=60, training__batch_size=20,
            training__curve_every=curve_every,
        )
        for seed in range(number)
    ]  # fmt: skip


# Each value of each setting stands beside several others. Noise in proportion to the root of activity has a slope
# without bound, which makes rounding grow, so that it is followed for 20 steps.
ROOT = {"training__steps": 20, "training__curve_every": 20}
CASES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "poisson relu adamw": (
        {"noise": "poisson"},
        {**NOISY, **ROOT, "training__optimiser": "adamw", "training__weight_decay": 0.01},
    ),
    "gaussian tanh deep premodular power": (
        {"noise": "gaussian", "regulariser": "activity_weight"},
        {
            **NOISY, "regulariser__strength": 0.01, "architecture__activation": "tanh", "architecture__depth": 2,
            "architecture__cross_connections": 0.0, "training__gradient_clip": 0.5,
        },
    ),
    "dropout linear sgd odd batch": (
        {"noise": "dropout"},
        {**NOISY, "architecture__activation": "linear", "training__optimiser": "sgd", "training__batch_size": 17},
    ),
    "classification sigmoid pre-activation": (
        {"noise": "gaussian", "task": "classification"},
        {**NOISY, "noise__sites": "pre_activation", "architecture__activation": "sigmoid"},
    ),
    "silu wiring with exchanges of places": (
        {"architecture": "placed", "regulariser": "wiring"},
        {
            "architecture__activation": "silu", "architecture__depth": 2, "training__curve_every": 25,
            "regulariser__swap_every": 50, "regulariser__strength": 0.01, "regulariser__raised_by": 3.0,
            "regulariser__raised_from": 20, "regulariser__raised_until": 60, "regulariser__biases_from": 40,
            "regulariser__swap_moments": "places", "regulariser__swap_turns": "places",
        },
    ),
    "torch module with constants": (
        {"architecture": "torch", "noise": "gaussian"},
        {
            **NOISY, "architecture__module": {"_target_": "tests.networks.modules.Constant"},
            "architecture__width": None, "architecture__sites": ["hidden"],
        },
    ),
}  # fmt: skip
SLOW: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "multiplicative softplus deep jacobian": (
        {"noise": "multiplicative", "regulariser": "jacobian"},
        {
            **NOISY, "regulariser__strength": 0.01, "architecture__activation": "softplus", "architecture__depth": 2,
            "training__optimiser": "sgd",
        },
    ),
    "input noise depth 3 partial fresh": (
        {"noise": "gaussian"},
        {
            **NOISY, "noise__sites": "input", "architecture__depth": 3, "architecture__cross_connections": 0.3,
            "data__num_samples": None, "architecture__width": 17,
        },
    ),
    "linear map": ({}, {"architecture__depth": 0}),
    "first of two layers": (
        {"noise": "multiplicative"}, {**NOISY, "noise__sites": "first", "architecture__depth": 2},
    ),
    "last of two layers, activity power 1.5": (
        {"noise": "gaussian", "regulariser": "activity_weight"},
        {
            **NOISY, "noise__sites": "last", "architecture__depth": 2, "regulariser__strength": 0.01,
            "regulariser__activity_power": 1.5, "architecture__activation": "sigmoid",
        },
    ),
    **{
        f"regulariser {name}": (
            {"regulariser": name}, {"regulariser__strength": 0.01, "architecture__activation": "tanh"},
        )
        for name in ("scale_free", "multiplicative", "l1", "l2", "activity_l1", "activity_l2")
    },
    **{
        f"task {name}": ({"task": name}, {})
        for name in (
            "bump_position", "copying", "digits", "formulas", "grid_world", "modular_arithmetic", "overlap", "parity",
            "shared_output", "sum_of_products",
        )
    },
    **{
        name: ({"architecture": name, "noise": "gaussian"}, {**NOISY, "architecture__width": None})
        for name in ("attention", "experts", "recurrent")
    },
    "convolution": (
        {"architecture": "convolution", "task": "digits", "noise": "gaussian"},
        {**NOISY, "architecture__width": None},
    ),
    **{
        f"experts {gate}": (
            {"architecture": "experts"},
            {"architecture__width": None, "architecture__gate": gate, "architecture__top_k": kept},
        )
        for gate, kept in (("top_k", 2), ("frozen", None))
    },
    "gated mixture": (
        {"architecture": "gated_mixture", "task": "domains"},
        {"architecture__width": None, "training__batch_size": 1},
    ),
    "projected modules": (
        {"architecture": "projected_modules", "task": "projected", "noise": "gaussian"},
        {**NOISY, "architecture__width": 5, "architecture__projections": "kernel", "data__num_samples": 64},
    ),
    "conditionals": (
        {"architecture": "conditionals", "task": "causal"},
        {"architecture__width": None, "training__batch_size": 1, "data__num_samples": 64},
    ),
}  # fmt: skip
