"""`modulab clean`: compiled steps, and checkpoints of finished folders, with their sizes; removed only when asked.

A checkpoint is removable where it serves no resuming: all members of its population are completed or diverged rows of
the folder's results with all their measures, and no process is at work there. It holds the trained weights, so that
what reads these (`modulab analyse`, `load_members`) has nothing left afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from modulab.errors import ConfigError
from modulab.results.lock import LOCK, FolderLock
from modulab.results.manifest import POPULATIONS, manifest_of, read_manifest
from modulab.results.store import load_results
from modulab.results.summary import lost_measures

_FINISHED = ("completed", "diverged")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


OUTPUTS = Path("outputs")
"""Where commands write unless they are told otherwise."""


def clean(path: Path | None, *, remove: bool) -> list[str]:
    """Return lines that say what there is to remove, and remove it if asked.

    That is what lies under a path; without one, what lies under `outputs` and in the cache of compiled steps.

    Raises: ConfigError for a path that is no folder, and for a folder in which another process is at work.
    """
    if path is not None and not path.is_dir():
        raise ConfigError(
            f"{path} is no folder. Give one that holds folders of results, or none for {OUTPUTS}."
        )
    compiled: list[Path] = []
    lines: list[str] = []
    if path is None:
        path, compiled = OUTPUTS, _compiled_steps()
        lines = [f"compiled steps: {_amount(compiled)}" + (f", in {compiled[0].parent}" if compiled else "")]
    folders = sorted({file.parents[1] for file in path.rglob(f"{POPULATIONS}/*.ckpt")})
    removable = list(compiled)
    for folder in folders:
        checkpoints, reason = _checkpoints(folder, remove)
        removable += checkpoints
        lines.append(
            f"checkpoints in {folder}: " + (_amount(checkpoints) if reason is None else f"kept: {reason}")
        )
    if not folders:
        lines.append(f"checkpoints in {path}: none")
    if remove:
        size = _amount(removable)
        for file in removable:
            file.unlink(missing_ok=True)
        return [*lines, f"Removed {size}."]
    return [
        *lines,
        f"To remove {_amount(removable)}, add --yes. Results stay. "
        + ("Compiled steps are compiled again when they are needed. " if compiled else "")
        + "Without its checkpoints a folder has no weights for modulab analyse and load_members.",
    ]


def _compiled_steps() -> list[Path]:
    from modulab.training.cache import cache_folder

    return sorted(file for file in cache_folder().glob("*.so") if file.is_file() and not file.is_symlink())


def _checkpoints(folder: Path, lock: bool) -> tuple[list[Path], str | None]:
    """Return the checkpoints that nothing needs to go on from, or why all are kept."""
    if lock and (folder / LOCK).exists():
        with FolderLock(folder):
            return _unneeded(folder)
    return _unneeded(folder)


def _unneeded(folder: Path) -> tuple[list[Path], str | None]:
    try:
        results = load_results(folder)
        if results.empty or not set(results["status"]).issubset(_FINISHED) or lost_measures(results):
            return [], "not all networks of this folder are finished and measured"
        rows = set(results["run_id"])
        return list(_of_finished_members(folder, rows)), None
    except ConfigError as error:
        return [], str(error)


def _of_finished_members(folder: Path, rows: set[str]) -> Iterator[Path]:
    for file in sorted((folder / POPULATIONS).glob("*.ckpt")):
        manifest = manifest_of(file)
        if not file.is_symlink() and manifest.exists() and rows.issuperset(read_manifest(manifest)):
            yield file


def _amount(files: Sequence[Path]) -> str:
    size: float = sum(file.stat().st_size for file in files)
    power = 0
    while size >= 1024 and power < len(_UNITS) - 1:
        size, power = size / 1024, power + 1
    return f"{len(files)} file{'' if len(files) == 1 else 's'}, {size:.0f} {_UNITS[power]}"
