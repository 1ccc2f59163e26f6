"""Archives of elites: what stays in each cell, how trials are drawn from it, and how such a search goes on."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from modulab.errors import ConfigError
from modulab.report.archive_figure import archive_figure, archive_section
from modulab.results.store import load_results
from modulab.sweep.archive import ARCHIVE, Axis, Candidate, elites, read_archive
from modulab.sweep.elites import MapElites
from tests.command_line import SMALL, Command, killed_when_it_says, last_given
from tests.report.figure_rules import broken_rules

AXES = (Axis("first", 0.0, 1.0, 5), Axis("second", -2.0, 2.0, 4))
Genes = dict[str, FloatDistribution | IntDistribution | CategoricalDistribution]
EVOLVE = [
    "train", "-m", "hydra/sweeper=evolve", *SMALL, "noise.scale=interval(0,1)", "seed=range(50)",
    "architecture.initial_scale=tag(log,interval(0.1,10))",
    "sweep.objective=[error/test,modularity/structural,activity/active_units]",
    "hydra.sweeper.sampler.ranges=[[-1,1],[0,6]]", "hydra.sweeper.sampler.cells=[8,6]",
    "hydra.sweeper.sampler.initial=8", "hydra.sweeper.n_jobs=8",
]  # fmt: skip


def candidates(number: int) -> list[Candidate]:
    """Return candidates all over the plane and beyond, many of them equally fit."""
    generator = np.random.default_rng(1)
    return [
        Candidate(
            place, float(generator.integers(4)), (generator.normal(0.5, 0.5), generator.normal(0, 2)),
            (float(generator.integers(5)),),
        )
        for place in range(number)
    ]  # fmt: skip


def evolved(
    genes: Genes, outcome: Callable[[Mapping[str, float]], list[float]], trials: int, **settings: object
) -> tuple[optuna.Study, MapElites]:
    """Return a study of generations of 50 trials of a function, and its last sampler."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * 3)
    keys = {"ranges": [[0, 1], [0, 1]], "cells": [10, 10], "initial": 100, "mutation": 0.1, **settings}
    sampler = MapElites(**keys, seed=0)
    for begun in range(0, trials, 50):
        sampler = MapElites(**keys, seed=begun)
        study.sampler = sampler
        for trial in [study.ask(genes) for _ in range(50)]:
            study.tell(trial, outcome(trial.params))
    return study, sampler


def test_the_elite_of_each_cell_is_the_fittest_that_came_there() -> None:
    tried = candidates(500)
    table = pd.DataFrame([(each.fitness, *each.measures) for each in tried], columns=["fitness", "x", "y"])
    for name, low, high, cells in (("x", 0.0, 1.0, 5), ("y", -2.0, 2.0, 4)):
        inner = np.linspace(low, high, cells + 1)[1:-1]
        table[name] = np.digitize(table[name], inner)
    expected = table.groupby(["x", "y"])["fitness"].min()
    found = elites(AXES, tried)
    assert list(found) == list(expected.index)
    assert [each.fitness for each in found.values()] == expected.tolist()


def test_the_order_in_which_candidates_come_and_their_numbers_change_no_elite() -> None:
    tried = candidates(300)
    kept = {cell: (each.fitness, each.measures) for cell, each in elites(AXES, tried).items()}
    distinct = [
        Candidate(each.number, each.fitness, each.measures, (*each.genes, *each.measures)) for each in tried
    ]
    expected = elites(AXES, distinct)
    shuffled = random.Random(0)
    for _ in range(5):
        shuffled.shuffle(distinct)
        again = [
            Candidate(place, each.fitness, each.measures, each.genes) for place, each in enumerate(distinct)
        ]
        found = elites(AXES, again)
        assert {cell: each.genes for cell, each in found.items()} == {
            cell: each.genes for cell, each in expected.items()
        }
    assert kept.keys() == expected.keys()


def test_elites_never_get_worse_and_cells_never_empty_as_candidates_come() -> None:
    tried = candidates(300)
    before: dict[tuple[int, ...], Candidate] = {}
    for number in range(0, 300, 20):
        found = elites(AXES, tried[:number])
        assert elites(AXES, [*before.values(), *tried[:number]]) == found  # elites stand for all before them
        for cell, elite in before.items():
            assert found[cell].fitness <= elite.fitness
        before = found
    assert len(before) == 20


@pytest.mark.parametrize(
    ("value", "cell"), [(-9.0, 0), (0.0, 0), (0.199, 0), (0.2, 1), (0.9999, 4), (1.0, 4), (7.0, 4)]
)
def test_values_beyond_the_range_are_in_the_outer_cells(value: float, cell: int) -> None:
    assert AXES[0].place(value) == cell


def test_of_a_planted_objective_the_best_of_every_cell_is_found() -> None:
    genes: Genes = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    study, sampler = evolved(genes, lambda at: [at["x"] + at["y"], at["x"], at["y"]], 2000, mutation=0.05)
    kept = sampler.kept(study)
    assert len(kept) == 100
    # The least of x + y in a cell is at its lower corner; 20 trials a cell come near it.
    excess = [trial.values[0] - (cell[0] + cell[1]) / 10 for cell, trial in kept.items()]
    assert min(excess) >= 0
    assert np.mean(excess) < 0.06


def test_mutants_of_elites_reach_cells_that_random_trials_do_not() -> None:
    genes: Genes = {f"gene_{number}": FloatDistribution(0, 1) for number in range(8)}

    def outcome(at: Mapping[str, float]) -> list[float]:
        values = list(at.values())
        return [0.0, float(np.mean(values[:4])), float(np.mean(values[4:]))]

    study, sampler = evolved(genes, outcome, 1200, mutation=0.2)
    random_study, random_sampler = evolved(genes, outcome, 1200, initial=1200)
    # Means of four numbers have a standard deviation of .14, so that random trials hardly ever come near the corners.
    reached, at_random = set(sampler.kept(study)), set(random_sampler.kept(random_study))
    assert len(reached) > 1.25 * len(at_random)
    assert len(reached - at_random) > 3 * len(at_random - reached)


def test_trials_stay_in_what_they_are_drawn_from_and_reach_all_of_it() -> None:
    genes: Genes = {
        "whole": IntDistribution(2, 5),
        "log": IntDistribution(1, 4, log=True),
        "step": FloatDistribution(0.5, 2.0, step=0.5),
        "scale": FloatDistribution(1e-4, 1.0, log=True),
        "one": FloatDistribution(3.0, 3.0),
        "choice": CategoricalDistribution(["a", "b", None]),
    }
    study, _ = evolved(genes, lambda at: [1.0, at["scale"], at["step"] / 2], 1000)
    drawn = {name: [trial.params[name] for trial in study.trials] for name in genes}
    assert all(1e-4 <= value <= 1 for value in drawn["scale"])
    assert set(drawn["one"]) == {3.0}
    assert set(drawn["whole"]) == {2, 3, 4, 5}
    assert set(drawn["log"]) == {1, 2, 3, 4}
    assert set(drawn["step"]) == {0.5, 1.0, 1.5, 2.0}
    assert set(drawn["choice"]) == {"a", "b", None}
    at_random = np.log10(drawn["scale"][:100])
    assert abs(at_random.mean() + 2) < 5 * 4 / 12**0.5 / 100**0.5  # even in the logarithm


def test_a_trial_depends_on_its_number_and_the_archive_alone() -> None:
    genes: Genes = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    study, _ = evolved(genes, lambda at: [at["x"], at["x"], at["y"]], 200)
    again, _ = evolved(genes, lambda at: [at["x"], at["x"], at["y"]], 200)
    assert [trial.params for trial in study.trials] == [trial.params for trial in again.trials]
    # Mutants are near their parents: the distance to the nearest elite before is a few mutations at most.
    before = np.array([list(trial.params.values()) for trial in study.trials[:150]])
    late = np.array([list(trial.params.values()) for trial in study.trials[150:]])
    nearest = np.linalg.norm(late[:, None] - before[None], axis=2).min(axis=1)
    assert nearest.max() < 0.4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.sweeper.sampler.ranges=null"], "hydra.sweeper.sampler.ranges=[[0,1],[0,48]]"),
        (["hydra.sweeper.sampler.ranges=[[1,0],[0,6]]"], "give the ranges of modularity/structural"),
        (["hydra.sweeper.sampler.ranges=[[0,1]]"], "give the ranges of modularity/structural"),
        (["hydra.sweeper.sampler.cells=[3,0]"], "hydra.sweeper.sampler.cells=[3, 0]"),
        (["hydra.sweeper.sampler.initial=0"], "hydra.sweeper.sampler.initial=0"),
        (["hydra.sweeper.sampler.mutation=0"], "hydra.sweeper.sampler.mutation=0"),
        (["sweep.objective=error/test"], "an archive needs three measures"),
        (["sweep.objective=[error/test,activity/mean,activity/mean]"], "an archive needs three measures"),
    ],
)
def test_archive_that_cannot_be_ends_in_one_message_and_leaves_nothing(
    command: Command, words: list[str], message: str
) -> None:
    code, out, err = command(*last_given(*EVOLVE, *words))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_search_trains_generations_as_populations_and_ends_with_their_archive_and_its_figure(
    command: Command,
) -> None:
    code, out, err = command(*EVOLVE, "hydra.sweeper.n_trials=16", "hydra.sweep.dir=search")
    assert code == 0, err
    assert len(list(Path("search/populations").glob("*.ckpt"))) == 2
    rows, archive = load_results("search"), pd.read_csv(Path("search", ARCHIVE))
    assert len(rows) == 16
    assert len(archive) == 48
    first, second, objective = "modularity/structural", "activity/active_units", "error/test"
    for cell in archive.to_dict("records"):
        inside = pd.Series(data=True, index=rows.index)
        for name, lowest, highest in ((first, -1, 1), (second, 0, 6)):
            low, high = cell[f"{name}:low"], cell[f"{name}:high"]
            inside &= (rows[name] >= low) | (low == lowest)
            inside &= (rows[name] < high) | (high == highest)
        if not inside.any():
            assert np.isnan(cell[objective])
            continue
        best = rows.loc[rows.loc[inside, objective].idxmin()]
        assert cell[objective] == best[objective]
        for key in ("seed", "noise.scale", "architecture.initial_scale"):
            assert cell[key] == best[f"config.{key}"]
    filled = int(archive[objective].notna().sum())
    assert f"{filled} of 48 cells are filled: search/archive.csv" in err
    shown = out.partition("Best trials:\n")[2].splitlines()
    assert len(shown) == 1 + min(filled, 10)
    read = read_archive(Path("search"))
    assert read is not None
    assert (read.measures, read.objective) == ((first, second), objective)
    assert broken_rules(archive_figure(read, name="archive", title="Elites").figure) == []
    assert command("report", "search")[0] == 0
    assert Path("search/report/archive.png").is_file()
    assert f"{filled} of 48 cells are filled" in Path("search/report/report.html").read_text()


def test_same_command_with_more_trials_goes_on_to_the_same_archive(command: Command) -> None:
    fewer = last_given(*EVOLVE, "hydra.sweeper.n_jobs=4", "hydra.sweeper.sampler.initial=4")
    assert command(*fewer, "hydra.sweeper.n_trials=8", "hydra.sweep.dir=whole")[0] == 0
    assert command(*fewer, "hydra.sweeper.n_trials=4", "hydra.sweep.dir=parts")[0] == 0
    assert command(*fewer, "hydra.sweeper.n_trials=8", "hydra.sweep.dir=parts")[0] == 0
    whole, parts = (Path(folder, ARCHIVE).read_bytes() for folder in ("whole", "parts"))
    assert whole == parts


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n", "", "x:low,x:high,y:low,y:high,z\na,b,c,d,e\n", "x:low,x:high,y:low,y:high,z\n",
        "x:low,x:high,y:low,y:high,z\n0,inf,0,1,2\n", "x:low,x:high,y:low,y:high,z\n0,0,0,1,2\n",
        "x:low,x:high,y:low,y:high,z\n0,1,0,1,2\n0,1,0,1,3\n", "x:low,x:high,y:low,y:high\n0,1,0,1\n",
        "x:low,x:high,y:low,y:high,z\n0,1,0,1,2\n1,2,1,2,3\n", "x:low,x:high,z\n0,1,2\n", "\x00\xff",
    ],
)  # fmt: skip
def test_file_that_is_no_archive_is_named_and_stops_no_report(tmp_path: Path, text: str) -> None:
    path = Path(tmp_path, ARCHIVE)
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_archive(tmp_path)
    section = archive_section(tmp_path)
    assert section is not None
    assert "is not an archive of elites" in section.paragraphs[0]


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_killed_search_goes_on_to_the_same_archive(command: Command, tmp_path: Path) -> None:
    search = last_given(*EVOLVE, "training.steps=300", "hydra.sweeper.n_trials=24")
    assert command(*search, "hydra.sweep.dir=whole")[0] == 0
    killed_when_it_says("trials 17 to 24", [*search, "hydra.sweep.dir=killed"], tmp_path)
    assert command(*search, "hydra.sweep.dir=killed")[0] == 0
    assert Path("whole", ARCHIVE).read_bytes() == Path("killed", ARCHIVE).read_bytes()
