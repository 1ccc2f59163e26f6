"""Training of a shard of a sweep on a node, with any carrier."""

# No postponed annotations here: in a dataclass of another module that derives from this one they name nothing.
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from modulab.config.project_file import find_project
from modulab.config.settings import Run, Trainer, read_runs
from modulab.logger.run_log import RunLog
from modulab.progress import ProgressReport
from modulab.sweep.run import Work, plan_work, progress_of, train_populations
from modulab.training.execution import Execution


@dataclass
class NodeShard:
    """The members of a shard, which continue from where an earlier attempt left them."""

    configs: Sequence[dict[str, Any]]
    trainer: Trainer
    folder: str
    search_path: Sequence[str] = field(default_factory=list[str])
    execution: Execution | None = None
    """The execution chosen for all members of the sweep; None in tasks that earlier versions of modulab submitted."""

    @classmethod
    def of(cls, shard: Sequence[Run], work: Work, folder: Path, **own: Any) -> Self:
        """Return the shard for a node, with the additional fields of its carrier."""
        return cls(
            configs=[run.config for run in shard],
            trainer=work.trainer,
            folder=str(folder.absolute()),
            search_path=_search_path(),
            execution=work.execution,
            **own,
        )

    def train(self, progress: ProgressReport | None = None, log: RunLog | None = None) -> int:
        """Train the members without a result, and return their number.

        Progress is printed here, unless it is to be reported elsewhere.

        Raises: KeyboardInterrupt on Ctrl-C, or a signal that does the same, after what was trained is saved;
        ConfigError for what this node lacks.
        """
        sys.path.extend(path for path in self.search_path if path not in sys.path)
        execution = None if self.execution is None else self.execution.on_this_machine()
        # Configs and not members: their classes may lie in folders that could not be searched before.
        runs = read_runs(self.configs)
        folder = Path(self.folder)
        work = plan_work(runs, self.trainer, folder, execution)
        with progress or progress_of(work) as report:
            train_populations(work, folder, report, log)
        return work.pending


def _search_path() -> list[str]:
    """Return the folders of a user's own modules: the current one, the project's, and those of the environment."""
    project = find_project().folder
    named = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    return [os.getcwd(), *([str(project)] if project else []), *map(os.path.abspath, named)]
