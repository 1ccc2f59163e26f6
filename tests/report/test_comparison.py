"""Reports that compare several folders: each number, picture and command is that of the folder it is said to be of."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

import modulab
from modulab.errors import ConfigError
from modulab.report.choosing import choose_layout
from modulab.report.page import Page, Section, page_figures
from modulab.report.sources import Source, load_sources, names_in, sources_of
from modulab.report.sweep_report import describe, write_report
from modulab.results.parquet import CURVES, RESULTS, read_table, write_table
from modulab.results.store import FOLDER
from tests.command_line import SMALL, Command
from tests.report.browser import browser
from tests.report.test_interactive_page import in_browser

ERROR = "error/test"
FEW = ["probes.measures.ranges=null", "probes.measures.ablated_units=null", "population.seeds=2"]


def doubled(path: Path) -> None:
    """Double the errors in a file of results or curves."""
    table = read_table(path)
    frame = table.to_pandas()
    if path.name == RESULTS:
        frame[ERROR] *= 2
    else:
        frame.loc[frame["measure"] == ERROR, "value"] *= 2
    write_table(path, table.from_pandas(frame, table.schema, preserve_index=False))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a sweep, the same networks with twice the errors, and one with another setting."""
    root = tmp_path_factory.mktemp("runs")
    modulab.train([*SMALL, *FEW, "population.grid={noise.scale: [0, 0.2]}"], folder=root / "first")
    shutil.copytree(root / "first", root / "twice")
    for name in (RESULTS, CURVES):
        doubled(root / "twice" / name)
    modulab.train([*SMALL, *FEW, "training.learning_rate=0.01"], folder=root / "slower")
    return [root / "first", root / "twice", root / "slower"]


@pytest.fixture(scope="module")
def page(folders: list[Path]) -> Page:
    results, count = load_sources(sources_of(folders), 1000)
    assert count == len(results) == 10
    return describe(results, folders, (), count)


def figures(page: Page) -> dict[str, pd.DataFrame]:
    return {figure.name: figure.data for figure in page_figures(page)}


def of(table: pd.DataFrame, network: str) -> pd.DataFrame:
    """Return the errors of a network."""
    return table.loc[(table["measure"] == ERROR) & (table["run_id"] == network)]


def section(page: Page, title: str) -> Section:
    (found,) = [each for each in page.sections if each.title == title]
    return found


def test_sources_are_named_by_what_their_paths_do_not_share() -> None:
    def names(*paths: str) -> list[str]:
        return [source.name for source in sources_of([Path(path) for path in paths])]

    assert names("runs/a") == [""]
    assert names("runs/a", "runs/b") == ["a", "b"]
    assert names("/x/a/1", "/x/b/1") == ["a/1", "b/1"]
    assert names("runs", "runs/a") == ["runs", "runs/a"]
    assert names("a", "../b") == ["a", "../b"]
    assert sources_of(Path("a")) == [Source(Path("a"))]


def test_a_folder_that_is_given_twice_is_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        write_report([folders[0], folders[0].parent / "." / folders[0].name], tmp_path / "page")


def test_every_number_is_of_its_own_folder(page: Page, folders: list[Path]) -> None:
    data = figures(page)
    for place, path in enumerate(folders):
        results = modulab.load_results(path)
        curves = modulab.load_curves(path)
        for name in results["run_id"]:
            shown = name if place == 2 else f"{name} ({path.name})"
            own = results.loc[results["run_id"] == name, ERROR]
            assert of(data["measures"], shown)["value"].tolist() == pytest.approx(own.tolist())
            points = of(curves, name).sort_values("step")["value"]
            drawn = of(data["curves"], shown).sort_values("step")["value"]
            assert drawn.tolist() == pytest.approx(points.tolist())
    assert "connectivity" in data


def test_networks_and_commands_are_listed_by_folder(page: Page, folders: list[Path]) -> None:
    assert page.title == "Comparison of first, twice and slower"
    for each, path in zip(section(page, "Networks").sections, folders, strict=True):
        (table,) = each.tables
        assert each.title == f"Networks of {path.name}"
        assert table.repeat == shlex.join(["modulab", "rerun", str(path), "--member"])
        assert [name.partition(" ")[0] for name in table.networks] == modulab.load_results(path)[
            "run_id"
        ].tolist()
        assert {"seed", "noise.scale", "training.learning_rate"} <= set(table.headings)
    parts = section(page, "How to repeat it").sections
    assert [each.title for each in parts] == ["first", "twice", "slower", "One network"]


def test_the_settings_that_tell_the_folder_are_shown_in_its_place(folders: list[Path]) -> None:
    different = [folders[0], folders[2]]
    results, _ = load_sources(sources_of(different), 1000)
    assert choose_layout(results).varied == ["config.noise.scale", "config.training.learning_rate"]
    assert choose_layout(results.loc[results["config.training.learning_rate"] == 0.01]).varied == []
    assert "folder" in section(describe(results, different), "Summary").tables[0].headings
    equal, _ = load_sources(sources_of(folders[:2]), 1000)
    assert choose_layout(equal).varied == ["config.noise.scale", FOLDER]


def test_networks_that_only_one_folder_has_keep_their_names(folders: list[Path]) -> None:
    sources = sources_of([folders[0], folders[2]])
    results, _ = load_sources(sources, 1000)
    for source, names in names_in(sources, results):
        assert {own: own for own in modulab.load_results(source.path)["run_id"]} == names


def test_the_command_writes_a_comparison_in_the_working_folder(command: Command, folders: list[Path]) -> None:
    code, out, _ = command("report", str(folders[0]), str(folders[2]))
    assert code == 0
    assert f"Report: {Path('report', 'report.html')}" in out
    assert Path("report/report.html").is_file()
    assert pd.read_csv("report/summary.csv")["folder"].unique().tolist() == ["first", "slower"]
    code, _, err = command("report", str(folders[0]), "nowhere")
    assert code == 2
    assert err.startswith("error: nowhere: there is no such path")


@pytest.mark.slow
def test_a_notebook_compares_folders(folders: list[Path], tmp_path: Path) -> None:
    found = modulab.figures(folders[:2])
    assert set(found["measures"].data["folder"].dropna()) == {"first", "twice"}
    assert modulab.write_report([folders[0], str(folders[2])], tmp_path / "page").path.is_file()
    with pytest.raises(modulab.ConfigError, match="several in a list"):
        modulab.figures([])


@pytest.fixture(scope="module")
def written(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(folders, tmp_path_factory.mktemp("comparison"))


@in_browser
def test_a_network_of_two_folders_is_repeated_in_the_one_that_is_chosen(
    written: Path, folders: list[Path], tmp_path: Path
) -> None:
    with browser(tmp_path) as opened:
        opened.open(written)
        for place, path in enumerate(folders):
            table = f"document.querySelectorAll('table[data-repeat]')[{place}]"
            chosen = opened.evaluate(
                f"(() => {{ const row = {table}.tBodies[0].rows[0]; row.querySelector('button').click();"
                "return document.querySelectorAll('tr.chosen').length; })()"
            )
            assert chosen == 1
            name = modulab.load_results(path)["run_id"].iloc[0]
            shown = opened.evaluate("document.querySelector('.selection code').textContent")
            assert shlex.split(shown) == ["modulab", "rerun", str(path), "--member", name]
        assert opened.errors == []
