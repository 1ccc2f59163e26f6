"""Is (2,1) the best product penalty? See scripts/penalties."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from given_overrides import answer, read_given
from one_fit import packed_against_one_fit
from penalty_contest import (
    CRITERIA,
    EXCESS,
    REFERENCE,
    SEED,
    SHOWN,
    STRENGTH,
    Array,
    Contest,
    Criterion,
    P,
    Q,
    choose_strengths,
    contest_of,
    ratio_interval,
)
from penalty_figure import penalty_figure

import modulab
from modulab.arguments import ArgumentParser
from modulab.report.figure import save_figures

SEARCHED = ("regulariser.weight_power", "regulariser.activity_power", "regulariser.strength",
            "noise.constant", "noise.linear", "noise.quadratic")  # fmt: skip
EVALUATION_SEED, FRESH_SEED = 100, 300


def completed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of networks that trained to the end."""
    return table[table["status"] == "completed"]


def train(folder: Path, support: str, grid: Sequence[Mapping[str, float]], seed: int, seeds: int,
          overrides: Sequence[str]) -> pd.DataFrame:  # fmt: skip
    """Return the rows of these settings, trained with a number of seeds from `seed` on."""
    written = ", ".join(
        "{" + ", ".join(f"{key}: [{value}]" for key, value in own.items()) + "}" for own in grid
    )
    return completed(
        modulab.train(
            [
                "experiment=penalties", *overrides, f"task.support={support}", f"seed={seed}",
                f"population.seeds={seeds}", f"population.grid=[{written}]",
            ],
            folder=folder,
        ).table
    )  # fmt: skip


def as_settings(powers: tuple[float, float], strength: float) -> dict[str, float]:
    """Return a penalty as the settings of a member, without noise."""
    values = (*powers, strength, 0.0, 0.0, 0.0)
    return {**dict(zip(SEARCHED, values, strict=True)), "noise.scale": 0.0}


def run_contests(folder: Path, seeds: int, overrides: Sequence[str]) -> dict[str, Contest]:
    """Choose strengths on some seeds, train others at them, and return what came of it for each criterion."""
    contests: dict[str, Contest] = {}
    for support in ("full", "band"):
        tuning = completed(
            modulab.train(
                ["experiment=penalties", *overrides, f"task.support={support}"],
                folder=folder / f"tuning_{support}",
            ).table
        )
        criteria = {name: each for name, each in CRITERIA.items() if each.support == support}
        chosen = {name: choose_strengths(tuning, each.measure) for name, each in criteria.items()}
        pairs = sorted({(powers, strength) for own in chosen.values() for powers, strength in own.items()})
        rows = train(
            folder / support,
            support,
            [as_settings(*pair) for pair in pairs],
            EVALUATION_SEED,
            seeds,
            overrides,
        )
        ends = {tuning[STRENGTH].min(), tuning[STRENGTH].max()}
        for name, each in criteria.items():
            at_ends = [powers for powers, strength in chosen[name].items() if strength in ends]
            print(f"{each.words}: strengths chosen at an end of their range: {at_ends or 'none'}")
            own = [
                chosen[name].get((p, q)) == strength for p, q, strength in rows[[P, Q, STRENGTH]].to_numpy()
            ]
            contests[name] = contest_of(rows[own], each.measure)
    return contests


def search(folder: Path, criterion: Criterion, trials: int, overrides: Sequence[str]) -> pd.DataFrame:
    """Search over penalties and noise; return one row per trial, its settings and mean error, the best first."""
    asked = [
        "experiment=penalty_search", *overrides, f"task.support={criterion.support}",
        f"sweep.objective=[{criterion.measure},{EXCESS},activity/active_units]",
        f"hydra.sweeper.n_trials={trials}", f"hydra.sweep.dir={folder}",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "modulab.cli", "train", "-m", *asked], check=True)
    rows = completed(modulab.load_results(folder))
    keys = [f"config.{key}" for key in SEARCHED]
    means = rows.groupby(keys, as_index=False)[[criterion.measure, EXCESS]].mean()
    found = means.sort_values(criterion.measure).reset_index(drop=True)
    return found.rename(columns=lambda name: name.removeprefix("config."))


def compare_winners(
    folder: Path, name: str, contest: Contest, trials: pd.DataFrame, seeds: int, overrides: Sequence[str]
) -> dict[str, Array]:
    """Return the logarithms of errors over those of (2, 1) at fresh seeds: of five trials, and of the best powers."""
    criterion = CRITERIA[name]
    strengths = contest.rows.groupby([P, Q])[STRENGTH].first()
    best = contest.powers[int(np.nanmean(contest.differences, axis=0).argmin())]
    arms = {"(2,1)": as_settings(REFERENCE, float(strengths[REFERENCE]))}
    if best != REFERENCE:
        arms[f"({best[0]:g}, {best[1]:g})"] = as_settings(best, float(strengths[best]))
    for place, values in enumerate(trials[list(SEARCHED)].head(5).to_numpy(dtype=float).tolist()):
        arms[f"trial {place + 1}"] = {**dict(zip(SEARCHED, values, strict=True)), "noise.scale": 1.0}
    rows = train(folder, criterion.support, list(arms.values()), FRESH_SEED, seeds, overrides)
    errors: dict[str, Array] = {}
    for arm, own in arms.items():
        kept = np.all([np.isclose(rows[f"config.{key}"], value) for key, value in own.items()], axis=0)
        series = rows[kept].set_index(SEED)[criterion.measure]
        every = range(FRESH_SEED, FRESH_SEED + seeds)
        errors[arm] = np.log(series.reindex(every).to_numpy(dtype=float))
    return {arm: values - errors["(2,1)"] for arm, values in errors.items() if arm != "(2,1)"}


def report_contest(name: str, contest: Contest) -> None:
    """Print what a criterion's predictions are about."""
    criterion = CRITERIA[name]
    means = contest.rows.groupby([P, Q]).mean(numeric_only=True)
    own = contest.best
    print(
        f"{criterion.words}: least on the surface at p {own.place[0]:.2f} [{own.low[0]:.2f}, {own.high[0]:.2f}], "
        f"q {own.place[1]:.2f} [{own.low[1]:.2f}, {own.high[1]:.2f}]; {own.not_worse.mean():.2f} of it is not worse"
    )
    matched = [] if criterion.matched is None else [(2.0, criterion.matched)]
    for powers in dict.fromkeys([REFERENCE, *matched]):
        place = int(np.abs(SHOWN - powers).sum(axis=1).argmin())
        print(f"  {powers} is {'not ' * bool(own.not_worse[place])}shown to be worse than the best")
    print(f"  better than (2,1) by simultaneous intervals: {contest.better() or 'none'}")
    for powers in contest.powers:
        row = means.loc[powers]
        low, mid, high = (f"{end:.3f}" for end in np.array(contest.ratio(powers))[[1, 0, 2]])
        tolerated = "" if criterion.tolerance is None else f", tolerance {row[criterion.tolerance]:.3f}"
        print(
            f"  {powers}: strength {row[STRENGTH]:.3g}, error {row[criterion.measure]:.4f}, over (2,1) {mid} "
            f"[{low}, {high}], clean error {row['error/test']:.4f}, excess {row[EXCESS]:.3f}{tolerated}"
        )


def report_search(name: str, trials: pd.DataFrame, winners: Mapping[str, Array]) -> None:
    """Print the best trials, and how they compare with (2, 1) at fresh seeds."""
    print(f"search, {CRITERIA[name].words}:")
    for place, row in trials.head(5).iterrows():
        settings = ", ".join(f"{key.split('.')[1]} {row[key]:.3g}" for key in SEARCHED)
        print(f"  trial {int(str(place)) + 1}: {settings}")
    for arm, differences in winners.items():
        print(
            f"  {arm}: over (2,1) at fresh seeds {'{:.3f} [{:.3f}, {:.3f}]'.format(*ratio_interval(differences))}"
        )
    five = [values for arm, values in winners.items() if arm.startswith("trial")]
    print(f"  mean of the trials: {np.exp(np.nanmean(five)):.3f}")


def main() -> int:
    """Choose strengths, train, search, compare, draw."""
    parser = ArgumentParser(prog="scripts/penalties", description=__doc__)
    parser.add_argument("--seeds", type=int, default=12, help="seeds of each evaluation")
    parser.add_argument("--trials", type=int, default=240, help="trials of each search")
    options, overrides = read_given(parser, "outputs/penalties")
    contests = run_contests(options.folder, options.seeds, overrides)
    for name, contest in contests.items():
        report_contest(name, contest)
    winners: dict[str, dict[str, Array]] = {}
    for name in ("poisson", "extrapolation"):
        trials = search(options.folder / f"search_{name}", CRITERIA[name], options.trials, overrides)
        winners[name] = compare_winners(
            options.folder / f"winners_{name}", name, contests[name], trials, options.seeds, overrides
        )
        report_search(name, trials, winners[name])
    save_figures([penalty_figure(contests, winners)], options.folder)
    print(packed_against_one_fit(contests["poisson"].rows, ["experiment=penalties", *overrides]))
    print(f"Figure: {options.folder / 'penalties.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(answer(main))
