"""Members exported to Lightning's CSV and TensorBoard loggers, one folder each."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from modulab.lightning import CSVLogger, TensorBoardLogger
from modulab.logger.records import MemberRecord

_FINAL = "final/"
"""Before the names of final measures: they are measured on more points than those of curves."""


class CsvBackend:
    """Writes csv/RUN_ID/metrics.csv, whose last row holds the final measures, and hparams.yaml."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, run_id: str, config: Mapping[str, Any], live: bool) -> CSVLogger:
        """Return a new logger of a member."""
        shutil.rmtree(self._folder / "csv" / run_id, ignore_errors=True)
        every = 1 if live else sys.maxsize
        logger = CSVLogger(self._folder, name="csv", version=run_id, flush_logs_every_n_steps=every)
        logger.log_hyperparams(dict(config))
        return logger

    def point(self, log: CSVLogger, step: int, values: Mapping[str, float]) -> None:
        """Add a row."""
        row: dict[str, Tensor | float] = {**values}
        log.log_metrics(row, step)

    def close(self, log: CSVLogger, record: MemberRecord) -> None:
        """Add the row of final measures, and how the member ended to its hyperparameters."""
        final: dict[str, Tensor | float] = {
            f"{_FINAL}{name}": value for name, value in record.measures.items()
        }
        log.log_metrics(final, max(record.curves, default=0))
        log.log_hyperparams(dict(record.facts))
        log.finalize(_ending(record))

    def abandon(self, log: CSVLogger) -> None:
        """Leave what is there."""
        log.save()

    def summarise(self) -> None:
        """Nothing to add: results.parquet is the table of the sweep."""


class TensorboardBackend:
    """Writes tensorboard/RUN_ID/events.*, with settings and final measures in the HParams tab."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, run_id: str, config: Mapping[str, Any], live: bool) -> TensorBoardLogger:
        """Return a new logger of a member."""
        del config, live
        shutil.rmtree(self._folder / "tensorboard" / run_id, ignore_errors=True)
        return TensorBoardLogger(self._folder, name="tensorboard", version=run_id, default_hp_metric=False)

    def point(self, log: TensorBoardLogger, step: int, values: Mapping[str, float]) -> None:
        """Add a scalar for each measure."""
        log.log_metrics({_tag(name): value for name, value in values.items()}, step)
        log.experiment.flush()

    def close(self, log: TensorBoardLogger, record: MemberRecord) -> None:
        """Write settings, how the member ended, and the final measures."""
        final: dict[str, Any] = {_tag(f"{_FINAL}{name}"): value for name, value in record.measures.items()}
        log.log_hyperparams({**record.config, **record.facts}, final, step=max(record.curves, default=0))
        log.finalize(_ending(record))
        log.experiment.close()

    def abandon(self, log: TensorBoardLogger) -> None:
        """Leave what is there."""
        log.experiment.close()

    def summarise(self) -> None:
        """Nothing to add: results.parquet is the table of the sweep."""


def _tag(name: str) -> str:
    """Return a name as TensorBoard takes it: it knows no @."""
    return name.replace("@", "_at_")


def _ending(record: MemberRecord) -> str:
    return "success" if record.facts["status"] == "completed" else "failed"
