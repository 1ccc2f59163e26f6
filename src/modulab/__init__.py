"""modulab: train populations of small networks, and find out when and why they become modular."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modulab.api import (
        analyse,
        export_weights,
        figures,
        load_curves,
        load_members,
        load_results,
        options,
        run_claims,
        summary,
        train,
        train_grid,
        write_report,
    )
    from modulab.errors import ConfigError
    from modulab.returned import Results

# MKL otherwise picks kernels by memory alignment, and a member's rounding would depend on its place in the population.
os.environ.setdefault("MKL_CBWR", "AUTO")

__all__ = [
    "ConfigError",
    "Results",
    "analyse",
    "export_weights",
    "figures",
    "load_curves",
    "load_members",
    "load_results",
    "options",
    "run_claims",
    "summary",
    "train",
    "train_grid",
    "write_report",
]


def __getattr__(name: str) -> Any:
    # Importing modulab must not import torch: the command line answers --help without it.
    if name not in __all__:
        raise AttributeError(f"module 'modulab' has no attribute '{name}'")
    from modulab import api, errors

    return getattr(errors if name == "ConfigError" else api, name)


def __dir__() -> list[str]:
    # The interface, for dir() and the completion of notebooks, and nothing that this file itself needs.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
