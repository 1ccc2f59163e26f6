"""modulab: when, why and to what end neural networks become modular."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modulab.api import Results, analyse, load_members, load_results, train
    from modulab.errors import ConfigError

# MKL otherwise picks kernels by memory alignment, and a member's rounding would depend on its place in the population.
os.environ.setdefault("MKL_CBWR", "AUTO")

__all__ = ["ConfigError", "Results", "analyse", "load_members", "load_results", "train"]


def __getattr__(name: str) -> Any:
    # Importing modulab must not import torch: the command line answers --help without it.
    if name not in __all__:
        raise AttributeError(f"module 'modulab' has no attribute '{name}'")
    from modulab import api, errors

    return getattr(errors if name == "ConfigError" else api, name)


def __dir__() -> list[str]:
    # What is imported on demand is shown too, by dir() and by the completion of notebooks.
    return sorted({*globals(), *__all__})
