"""The engine that has begun to train in a folder, with which `trainer.engine=auto` continues there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from modulab.results.manifest import checkpoint_path
from modulab.results.store import engines, statuses
from modulab.training.checkpoints import engines_of
from modulab.training.engine import Engine
from modulab.training.execution import fastest


def engine_begun(
    folder: Path, run_ids: Collection[str], unfinished: Sequence[Sequence[str]]
) -> Engine | None:
    """Return the engine that began to train members of a folder, if those with these run_ids should continue with it.

    Of several it is the fastest, so networks that are added to a folder are trained as most of those there. The
    eager engine counts only where nothing is added: it trains what is small, and says nothing about more.
    """
    named = engines(folder)
    for population in unfinished:
        named |= {
            _of_earlier_version(name, named) for name in engines_of(checkpoint_path(folder, population))
        }
    begun = fastest(named)
    if begun == "eager" and not statuses(folder).keys() >= set(run_ids):
        return None
    return begun


def _of_earlier_version(name: str | None, named: set[str]) -> str:
    """Return the engine of a half-trained population, which the first versions did not keep: not the native one."""
    return name or ("eager" if "eager" in named else "compiled")
