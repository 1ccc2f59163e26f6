"""Members as W&B runs: one run per member, and one of the whole sweep with its table, charts, figures and files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import wandb

from modulab.config.loggers import WandbLogger, wandb_folder
from modulab.logger.charts import CHARTS, chart_table
from modulab.logger.keys import STEP, TABLE
from modulab.logger.ledger import remember, sweep_token
from modulab.logger.records import MemberRecord, outcomes
from modulab.logger.wandb_private import quiet_settings
from modulab.results.store import CURVES, RESULTS, load_results
from modulab.results.summary import metric_names

_TRIAL = {
    "WANDB_RUN_ID": "run_id",
    "WANDB_SWEEP_ID": "sweep_id",
    "WANDB_SWEEP_PARAM_PATH": "sweep_param_path",
}
_INTERRUPTED = 255
_LONGEST_TAG = 64


def take_trial() -> dict[str, str]:
    """Return the trial of the W&B agent that started this process, and hide it from members.

    The trial is the run as a whole; W&B would take each member for one. Call this before W&B looks at the
    environment.
    """
    return {
        setting: os.environ.pop(variable) for variable, setting in _TRIAL.items() if variable in os.environ
    }


class WandbBackend:
    """Writes W&B runs below wandb/ of a folder: live ones online where `online`, all others as offline runs."""

    def __init__(
        self, settings: WandbLogger, folder: Path, online: bool, trial: Mapping[str, str] | None = None
    ) -> None:
        """Write for a folder; `trial` is what `take_trial` gave."""
        self._trial = dict(trial or {})
        self._settings = settings
        self._folder = folder
        self._online = online
        self._group = settings.group or folder.resolve().name
        self._token = sweep_token(folder)
        remember(folder, {"project": settings.project, "entity": settings.entity, "group": self._group})
        self._quiet = quiet_settings(init_timeout=settings.patience_seconds)
        # Else the files of an artifact wait for their upload outside of the folder.
        os.environ.setdefault("WANDB_DATA_DIR", str((wandb_folder(folder) / "data").resolve()))

    def open(self, run_id: str, config: Mapping[str, Any], live: bool) -> Any:
        """Start a member's run. Online it resumes an existing run; offline it begins again."""
        run = self._start(
            f"{run_id}-{self._token}", member_name(config), "member", member_tags(config), config,
            online=live and self._online,
        )  # fmt: skip
        run.define_metric(STEP, hidden=True, summary="none")
        # The summary is left to the final measures, which have the names of curves but are more exact.
        run.define_metric("*", step_metric=STEP, summary="none")
        return run

    def point(self, log: Any, step: int, values: Mapping[str, float]) -> None:
        """Add a point at its step, unless the run of an earlier attempt has it."""
        if step >= log.step:
            log.log({STEP: step, **values}, step=step, commit=True)

    def close(self, log: Any, record: MemberRecord) -> None:
        """Add the summary, and end the run as finished or failed."""
        log.summary.update({**record.measures, **_present(record.facts)})
        if record.facts["error"]:
            log.notes = record.facts["error"]
        log.finish(exit_code=0 if record.facts["status"] == "completed" else 1)

    def abandon(self, log: Any) -> None:
        """End the run as killed; when the sweep is resumed, it continues this run."""
        log.finish(exit_code=_INTERRUPTED)

    def summarise(self) -> None:
        """Write the run of the sweep, if it is one: its table, charts, figures and files."""
        if not (self._folder / RESULTS).exists():
            return
        results = load_results(self._folder)
        if len(results) < 2 and not self._trial:
            return
        ended = list(outcomes(self._folder).values())
        config = {"sweep": self._group, "members": len(results)}
        name = self._trial.pop("run_id", f"sweep-{self._token}")
        run = self._start(name, self._group, "sweep", [], config, online=False, trial=self._trial)
        try:
            if self._trial:
                run.summary.update(_means(results))
            counts = {
                name: sum(status == name for status, _ in ended) for name in {status for status, _ in ended}
            }
            run.summary.update({f"members/{name}": count for name, count in sorted(counts.items()) if name})
            plain = results.astype(object).where(results.notna(), None)
            logged: dict[str, Any] = {TABLE: wandb.Table(columns=list(plain), data=plain.to_numpy().tolist())}
            for chart in CHARTS:
                table = chart_table(chart, results)
                if not table.empty:
                    logged[chart.key] = wandb.Table(columns=list(table), data=table.to_numpy().tolist())
            for figure in sorted((self._folder / "report").glob("*.png")):
                logged[f"report/{figure.stem}"] = wandb.Image(str(figure))
            run.log(logged)
            artifact = wandb.Artifact(f"results-{self._token}", type="results")
            for name in (RESULTS, CURVES):
                if (self._folder / name).exists():
                    artifact.add_file(str(self._folder / name))
            run.log_artifact(artifact)
        finally:
            run.finish()

    def _start(
        self,
        name: str,
        label: str,
        job_type: str,
        tags: list[str],
        config: Mapping[str, Any],
        online: bool,
        trial: Mapping[str, str] | None = None,
    ) -> Any:
        if not online:
            self._remove_unfinished(name)
        return wandb.init(
            project=self._settings.project,
            entity=self._settings.entity,
            dir=str(wandb_folder(self._folder).parent),
            id=name,
            name=label,
            group=self._group,
            job_type=job_type,
            tags=[tag[:_LONGEST_TAG] for tag in (*tags, *self._settings.tags)],
            config=dict(config),
            mode="online" if online else "offline",
            resume="allow" if online else None,
            reinit="create_new",
            settings=self._quiet.model_copy(update=dict(trial or {})),
        )

    def _remove_unfinished(self, name: str) -> None:
        """Remove files that earlier attempts left of an offline run, because the run will be written again."""
        for run in wandb_folder(self._folder).glob(f"offline-run-*-{name}"):
            if not list(run.glob("*.synced")):
                shutil.rmtree(run)


def member_tags(config: Mapping[str, Any]) -> list[str]:
    """Return the kinds of a member, one tag per group; a noise or regulariser of strength 0 counts as none."""
    return [f"{group}:{name}" for group, name in _kinds(config).items()]


def member_name(config: Mapping[str, Any]) -> str:
    """Return a readable name: the member's kinds with their strengths, and its seed."""
    noise, regulariser = config["noise"], config["regulariser"]
    words = [_kinds(config)["task"], _kinds(config)["architecture"]]
    words += [f"{noise['name']} {noise['scale']:g}"] if noise["scale"] else []
    words += [f"{regulariser['name']} {regulariser['strength']:g}"] if regulariser["strength"] else []
    return ", ".join([*words, f"seed {config['seed']}"])


def _means(results: pd.DataFrame) -> dict[str, float]:
    """Return the mean of each measure over completed members, which a W&B sweep optimises."""
    completed = results.loc[(results["status"] == "completed").to_numpy()]
    means = completed[metric_names(results)].mean().dropna()
    return {str(name): float(value) for name, value in means.items()}


def _kinds(config: Mapping[str, Any]) -> dict[str, str]:
    return {
        "task": config["task"]["name"],
        "architecture": config["architecture"]["name"],
        "noise": config["noise"]["name"] if config["noise"]["scale"] else "none",
        "regulariser": config["regulariser"]["name"] if config["regulariser"]["strength"] else "none",
    }


def _present(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
