"""The state of the global random generators, which users' code may draw from, as values that a checkpoint can hold."""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

_CUDA = "torch.cuda"
"""The name under which the generators of CUDA devices are reported."""


def random_state() -> dict[str, Any]:
    """Return the state of torch's, NumPy's and Python's generators, and that of each CUDA device if CUDA is in use."""
    import numpy as np  # here, as settings are read before NumPy and torch are needed
    import torch

    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": (
            str(kind),
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore a state that `random_state` returned."""
    import numpy as np
    import torch

    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])


def changed_generators(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names of the generators from which something was drawn between two states.

    Those of CUDA count if CUDA was in use before.
    """
    numpy_before, numpy_after = before["numpy"], after["numpy"]
    changed = {
        "torch": not before["torch"].equal(after["torch"]),
        _CUDA: any(not one.equal(other) for one, other in zip(before["cuda"], after["cuda"], strict=False)),
        "random": before["python"] != after["python"],
        "numpy": numpy_before[2:] != numpy_after[2:] or not numpy_before[1].equal(numpy_after[1]),
    }
    return [name for name, is_changed in changed.items() if is_changed]


@contextmanager
def kept_random_state() -> Generator[None]:
    """Restore the state of all generators at the end."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


@contextmanager
def own_random_state(seed: int) -> Generator[None]:
    """Seed the generators that a constructor may draw from, and restore them afterwards."""
    import numpy as np
    import torch

    with kept_random_state():
        torch.default_generator.manual_seed(seed)  # and not that of CUDA, where nothing is constructed
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  (what a user's constructor may draw from)
        yield
