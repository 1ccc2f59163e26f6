"""Names of measures: earlier ones are read and taken, and each says which way is better."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

import modulab
from modulab.config.settings import Sweep
from modulab.measure_names import arrow_key, better, current_measure, encodable, former_measure, with_arrow
from modulab.metrics.measure import Column, find_measure, shipped_measures
from modulab.results.analyses import analysis_path
from modulab.results.parquet import CURVES, RESULTS, write_table
from modulab.results.store import PARTS, load_curves
from modulab.results.summary import choose_metrics
from modulab.results.tables import curve_table, result_table
from tests.command_line import SMALL, Command, last_given

OLD, NEW = "robustness/poisson@0.3", "error_under/poisson@0.3"
EARLIER = Path(__file__).parent / "golden" / "earlier_version"
PAGE = Path(__file__).parents[1] / "docs" / "measures.md"


def rows(run_ids: list[str], **measures: list[float | None]) -> pa.Table:
    count = len(run_ids)
    configs = [{"seed": place} for place in range(count)]
    return result_table(configs, run_ids, ["completed"] * count, [None] * count, [0.5] * count, measures)


def shipped_columns() -> list[Column]:
    return [column for value in shipped_measures().values() for column in find_measure(value, "it").columns]


def test_a_folder_of_old_and_new_rows_has_one_column_of_results_curves_and_analyses(tmp_path: Path) -> None:
    (tmp_path / PARTS).mkdir()
    tables = {"old": ("a", OLD, 0.25), "new": ("b", NEW, 0.5)}
    for part, (run_id, name, value) in tables.items():
        write_table(tmp_path / PARTS / f"{part}.{RESULTS}", rows([run_id], **{name: [value]}))
        curves = curve_table([run_id], [10], {name: [[value / 2]], "training/loss": [[1.0]]})
        write_table(tmp_path / PARTS / f"{part}.{CURVES}", curves)
    path = analysis_path(tmp_path, "extra")
    path.parent.mkdir()
    nothing = pa.array([None], pa.string())
    found = {"run_id": pa.array(["a"]), "settings": pa.array(["{}"]), "skipped": nothing, "error": nothing}
    write_table(path, pa.table({**found, "extrapolation/combination": pa.array([3.0])}))
    table = modulab.load_results(tmp_path).set_index("run_id")
    assert OLD not in table
    assert table[NEW].to_dict() == {"a": 0.25, "b": 0.5}
    assert table.loc["a", "error_beyond/combination"] == 3.0
    points = load_curves(tmp_path)
    assert set(points["measure"]) == {NEW, "training/loss"}
    of_errors = points[points["measure"] == NEW].set_index("run_id")
    assert of_errors["value"].to_dict() == {"a": 0.125, "b": 0.25}


def test_a_file_with_both_names_has_one_value_per_row(tmp_path: Path) -> None:
    table = rows(["a", "b", "c"], **{OLD: [1.0, 2.0, None], NEW: [None, 4.0, None]})
    write_table(tmp_path / RESULTS, table)
    read = modulab.load_results(tmp_path)
    assert OLD not in read
    assert read[NEW].fillna(-1).tolist() == [1.0, 4.0, -1.0]


def test_results_of_an_earlier_version_have_the_present_names() -> None:
    names = [str(name) for name in modulab.load_results(EARLIER) if "/" in str(name)]
    assert NEW in names
    assert "error_beyond/own_range@2" in names
    assert "robustness/poisson/tolerance" in names
    assert not any(re.match(r"robustness/\w+@|extrapolation/", name) for name in names)


def test_tables_take_old_names_and_patterns(command: Command) -> None:
    results = modulab.load_results(EARLIER)
    assert choose_metrics(results, [OLD]) == [NEW]
    present = choose_metrics(results, ["error_under/poisson*", "robustness/poisson*/tolerance"])
    assert set(choose_metrics(results, ["robustness/poisson*"])) == set(present)
    code, out, err = command("table", str(EARLIER), "--metric", OLD)
    assert code == 0, err
    assert NEW in out
    assert f"{OLD} is called {NEW} now" in err


def test_objectives_and_curves_take_old_names(tmp_path: Path) -> None:
    assert Sweep(dry_run=False, objective=OLD, job_folders=False).objective == NEW
    assert Sweep(dry_run=False, objective=[OLD, "error/test"], job_folders=False).objective == [
        NEW,
        "error/test",
    ]
    changed = ["probes.curves=[robustness/poisson@*]", "training.curve_every=1", "training.steps=2"]
    overrides = last_given(*SMALL, *changed)
    run = modulab.train(overrides, folder=tmp_path / "run")
    recorded = {name for name in run.curves["measure"] if name != "training/loss"}
    assert recorded == {name for name in run.table if name.startswith("error_under/poisson@")} != set()


def test_names_of_a_users_own_measures_are_left_alone() -> None:
    for name in (
        "robustness/mine@0.3",
        "extrapolation/mine",
        "mine/robustness/poisson@1",
        "robustness/poisson/tolerance",
    ):
        assert current_measure(name) == name


def test_renaming_is_undone_by_the_former_name() -> None:
    for column in shipped_columns():
        name = re.sub(r"\{\w+\}", "3", column.name)
        assert current_measure(name) == name
        assert current_measure(former_measure(name)) == name


def test_the_page_on_measures_and_the_measures_agree_on_which_way_is_better() -> None:
    stated: dict[str, str | None] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5:
            way = re.search(r"\b(lower|higher)$", cells[3])
            stated |= dict.fromkeys(re.findall(r"`([^`]+/[^`]+)`", cells[1]), way and way[0])
    compared = 0
    for column in shipped_columns():
        name = re.sub(r"^(error_under|robustness)/\w+", r"\1/X", column.name)
        if name in stated:
            compared += 1
            assert column.better == stated[name], name
    assert compared >= 30


def test_a_users_own_measure_has_the_direction_that_its_name_begins_with() -> None:
    assert Column("error/mine", "My error").better == "lower"
    assert Column("robustness/mine", "My tolerance").better == "higher"
    assert Column("mine/error", "My error").better is None


def test_arrows_point_to_better_values_and_give_way_to_words_without_unicode() -> None:
    texts = [
        with_arrow(name, better(name)) for name in (NEW, "robustness/poisson/tolerance", "activity/mean")
    ]
    assert texts == [f"{NEW} ↓", "robustness/poisson/tolerance ↑", "activity/mean"]
    assert arrow_key(texts) == "↓ lower is better, ↑ higher is better"
    assert arrow_key(texts[:1]) == "↓ lower is better"
    assert arrow_key(texts[2:]) == ""
    assert encodable(texts[0], "utf-8") == texts[0]
    assert encodable(texts[0], "ascii") == f"{NEW} (lower)"
    assert encodable(texts[0], "latin-1") == f"{NEW} (lower)"
