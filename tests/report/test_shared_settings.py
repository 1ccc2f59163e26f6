"""The tables of settings that all networks share."""

import pandas as pd
import pytest

from modulab.config.composing import compose_checked, hydra_composer, plan_run
from modulab.config.overrides import replace_grid
from modulab.report.shared_settings import shared_settings
from modulab.results.tables import result_table

GIVEN = {
    "task=classification training.steps=20": {"training.steps": ("20", "4000")},
    "architecture=experts_top_k architecture.top_k=3 noise=gaussian": {
        "architecture.top_k": ("3", "2"),
    },
    "regulariser=l1 probes=graphs data.num_samples=null": {"data.num_samples": ("null", "4096")},
    "noise.scale=0.2 training.learning_rate=3e-3 probes.levels=[0.3]": {
        "noise.scale": ("0.2", "0"),
        "probes.levels": ("[0.3]", "[0.1, 0.2, 0.3, 0.5, 1.0]"),
    },
}


def settings_of(*overrides: str) -> pd.DataFrame:
    """Return the columns of settings of networks that a command would train."""
    given = replace_grid(overrides)
    with hydra_composer() as compose:
        runs = plan_run(compose_checked(compose, given), given, compose).runs
    count = len(runs)
    return result_table(
        [run.config for run in runs],
        [run.run_id for run in runs],
        ["completed"] * count,
        [None] * count,
        [1.0] * count,
        {"error/test": [0.5] * count},
    ).to_pandas()


@pytest.mark.parametrize("given", GIVEN)
def test_settings_that_differ_from_defaults_are_those_that_the_command_changed(given: str) -> None:
    section = shared_settings(settings_of(*given.split(), "population.seeds=2"))
    changed = {key: (value, default) for key, value, default, _ in section.tables[0].rows}
    assert changed == GIVEN[given]
    [others] = section.sections[0].tables
    assert section.sections[0].folded
    assert not set(changed) & {row[0] for row in others.rows}
    without = [row[0] for row in (*section.tables[0].rows, *others.rows) if not row[-1]]
    assert all(key.startswith("probes.measures.") for key in without)


def test_settings_that_vary_are_left_out_and_all_others_are_listed() -> None:
    results = settings_of("population.grid={noise.scale: [0, 0.1], architecture: [dense, premodular]}")
    section = shared_settings(results)
    assert section.paragraphs == ["All of them have their defaults."]
    listed = {f"config.{row[0]}" for row in section.sections[0].tables[0].rows}
    varied = {"noise.scale", "architecture.name", "architecture.cross_connections"}
    assert listed == {name for name in results if name.startswith("config.")} - {
        f"config.{key}" for key in (*varied, "seed")
    }


def test_settings_that_modulab_does_not_know_have_no_default_and_no_meaning() -> None:
    results = settings_of("population.seeds=2").assign(**{"config.task.colour": "red"})
    [table] = shared_settings(results).tables
    assert table.rows == [["task.colour", "red", "-", ""]]
