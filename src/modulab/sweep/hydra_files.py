"""Files that Hydra writes before a command is checked; restored if the command is rejected or a dry run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modulab.results.files import write_whole

if TYPE_CHECKING:
    from omegaconf import DictConfig
else:
    # Annotations are checked in tests, with a warning of the deprecated generics that DictConfig derives from.
    DictConfig = object

_DESCRIPTION = ("config.yaml", "hydra.yaml", "overrides.yaml")


class HydraFiles:
    """The files that Hydra may write in the folder of a command, as they were before."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._before: dict[Path, bytes | None] = {}

    def note(self, folder: Path, subfolder: str | None) -> None:
        """Remember the files of a folder; `subfolder` is where Hydra is configured to describe a run."""
        self._folder = folder.absolute()
        names = ["multirun.yaml", *(f"{subfolder}/{name}" for name in _DESCRIPTION if subfolder)]
        for path in (self._folder / name for name in names):
            with suppress(OSError):  # Hydra cannot write what cannot be read
                self._before[path] = path.read_bytes() if path.is_file() else None

    def restore(self) -> None:
        """Restore the files, and remove empty folders."""
        for path, content in self._before.items():
            if content is None:
                path.unlink(missing_ok=True)
                if path.parent != self._folder:
                    remove_empty(path.parent)
            elif not path.is_file() or path.read_bytes() != content:
                write_whole(path, content)
        if self._folder is not None:
            remove_empty(self._folder)


_files: ContextVar[HydraFiles | None] = ContextVar("hydra_files", default=None)


@contextmanager
def files_noted() -> Generator[HydraFiles]:
    """Let Hydra's callback record files inside the context; yield the record."""
    files = HydraFiles()
    token = _files.set(files)
    try:
        yield files
    finally:
        _files.reset(token)


class NoteFiles(Callback):
    """Records a command's folder before Hydra writes there, and removes empty logs."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Record the files of a run's folder."""
        del kwargs
        _note("run.dir", config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Record the files of a sweep's folder."""
        del kwargs
        _note("sweep.dir", config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Remove the job's log if it is empty, and its folder if that is then empty."""
        del job_return, kwargs
        log = Path(str(config.hydra.runtime.output_dir), f"{config.hydra.job.name}.log")
        if log.is_file() and not log.stat().st_size:
            log.unlink()
            remove_empty(log.parent)


def _note(key: str, config: DictConfig) -> None:
    files = _files.get()
    if files is None:
        return
    # Hydra itself then says why a folder has no name, and would also say so for what is raised here.
    with suppress(OmegaConfBaseException):
        folder = Path(str(OmegaConf.select(config.hydra, key)))
        files.note(folder, config.hydra.output_subdir)


def remove_empty(folder: Path) -> None:
    """Remove an empty folder, and those around it, up to the current one, that are then empty."""
    current = Path.cwd()
    folder = folder.absolute()
    for place in (folder, *folder.parents):
        if place in (current, *current.parents):
            return
        try:
            place.rmdir()
        except OSError:
            return
