"""Plan a sweep in the folder that is given first, and leave the rows of half of its members as if they were trained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.config.overrides import replace_grid
from modulab.config.settings import Run
from modulab.results.store import check_folder, gather, save_part
from modulab.results.tables import curve_table, result_table
from modulab.sweep.run import begin, plan_work

MEASURES = [
    *(
        f"error_under/{law}@{level}"
        for law in ("poisson", "gaussian", "weights")
        for level in (0.1, 0.2, 0.3, 0.5)
    ),
    *(
        f"modularity/{kind}"
        for kind in ("structural", "structural_excess", "structural_frame_null", "functional")
    ),
    *("error/test", "error/train", "error_beyond/combination", "activity/mean", "activity/active_units"),
    *(f"robustness/{law}" for law in ("poisson", "gaussian", "weights")),
]
CURVES = ("loss", "error/test", "modularity/structural")
STEPS = (0, 2, 4)
PART = 1024


def main(folder: Path, overrides: Sequence[str]) -> None:
    given = replace_grid(overrides)
    with hydra_composer() as compose:
        plan = plan_run(compose_checked(compose, given), given, compose)
    check_folder(folder)
    work = plan_work(plan.runs, plan.trainer, folder)
    begin(work, folder)
    # Those that finish first, population by population, as an interrupted run leaves them.
    finished = plan.runs[: len(plan.runs) // 2]
    for first in range(0, len(finished), PART):
        save_finished(folder, f"part{first:08}", finished[first : first + PART])
    gather(folder)


def save_finished(folder: Path, name: str, runs: Sequence[Run]) -> None:
    """Keep rows of members with numbers that were drawn and not measured."""
    draws = np.random.default_rng(runs[0].seed).random((len(MEASURES) + len(CURVES), len(runs), len(STEPS)))
    run_ids = [run.run_id for run in runs]
    rows = result_table(
        configs=[run.config for run in runs],
        run_ids=run_ids,
        statuses=["completed"] * len(runs),
        errors=[None] * len(runs),
        seconds=[0.1] * len(runs),
        measures={measure: draws[place, :, 0].tolist() for place, measure in enumerate(MEASURES)},
        engines=["native"] * len(runs),
        device="none",
    )
    curves = {measure: draws[place - len(CURVES)].tolist() for place, measure in enumerate(CURVES)}
    save_part(folder, name, rows, curve_table(run_ids, STEPS, curves))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
