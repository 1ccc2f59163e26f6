"""`modulab clean`: compiled steps, and checkpoints of finished folders, with their sizes; removed only when asked.

A checkpoint is removable where it serves no resuming: all members of its population are completed or diverged rows of
the folder's results with all their measures, and no process is at work there. It holds the trained weights, so that
what reads these (`modulab analyse`, `load_members`) has nothing left afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from modulab.errors import ConfigError
from modulab.results.lock import FolderLock
from modulab.results.manifest import POPULATIONS, manifest_of, read_manifest
from modulab.results.store import load_columns
from modulab.results.summary import lost_measures

_FINISHED = ("completed", "diverged")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


OUTPUTS = Path("outputs")
"""Where commands write by default."""


def clean(path: Path | None, *, remove: bool) -> list[str]:
    """Return lines that list what can be removed, and remove it if asked.

    That is what lies under a path; without one, what lies under `outputs` and in the cache of compiled steps.

    A folder that another process is using is not changed.

    Raises: ConfigError for a path that is not a folder.
    """
    if path is not None and not path.is_dir():
        raise ConfigError(
            f"{path} is not a folder. Give one that holds folders of results, or leave it out for {OUTPUTS}."
        )
    compiled: list[Path] = []
    lines: list[str] = []
    if path is None:
        path, compiled = OUTPUTS, _compiled_steps()
        lines = [
            f"compiled steps: {_amount(_sizes(compiled))}"
            + (f", in {compiled[0].parent}" if compiled else "")
        ]
    sizes = _sizes(compiled)
    if remove:
        _remove(compiled)
    folders = sorted({file.parents[1] for file in path.rglob(f"{POPULATIONS}/*.ckpt")})
    for folder in folders:
        found, reason = _clean_checkpoints(folder, remove)
        sizes += found
        lines.append(f"checkpoints in {folder}: " + (_amount(found) if reason is None else f"kept: {reason}"))
    if not folders:
        lines.append(f"checkpoints in {path}: none")
    if remove:
        return [*lines, f"Removed {_amount(sizes)}."]
    if not sizes:
        return [*lines, "Nothing to remove."]
    return [
        *lines,
        f"To remove {_amount(sizes)}, add --yes. Results are kept. "
        + ("Compiled steps are compiled again when they are needed. " if compiled else "")
        + "Without its checkpoints a folder has no weights for modulab analyse and load_members.",
    ]


def _compiled_steps() -> list[Path]:
    from modulab.training.cache import cache_folder

    return sorted(file for file in cache_folder().glob("*.so") if file.is_file() and not file.is_symlink())


def _clean_checkpoints(folder: Path, remove: bool) -> tuple[list[int], str | None]:
    """Return the sizes of checkpoints that no run needs to continue, or why all are kept; remove them if asked.

    The folder is locked from before the search until the files are removed: a run that begins in between would lose
    the checkpoints that it resumes from.
    """
    if not remove:
        found, reason = _unneeded(folder)
        return _sizes(found), reason
    try:
        lock = FolderLock(folder)
    except ConfigError as error:
        return [], str(error)
    with lock:
        found, reason = _unneeded(folder)
        sizes = _sizes(found)
        _remove(found)
        return sizes, reason


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _unneeded(folder: Path) -> tuple[list[Path], str | None]:
    try:
        results = load_columns(folder, ["run_id", "status", "skipped"])
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


def _sizes(files: Sequence[Path]) -> list[int]:
    return [file.stat().st_size for file in files]


def _amount(sizes: Sequence[int]) -> str:
    size: float = sum(sizes)
    power = 0
    while size >= 1024 and power < len(_UNITS) - 1:
        size, power = size / 1024, power + 1
    return f"{len(sizes)} file{'' if len(sizes) == 1 else 's'}, {size:.0f} {_UNITS[power]}"
