from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import torch

import modulab
from modulab.config.overrides import replace_grid, restore_grid
from modulab.measure_names import better, with_arrow
from modulab.metrics.measure import Column
from modulab.report.choosing import ARM, choose_layout, choose_pictures, split_for_curves
from modulab.report.connectivity import SILENT, sort_units, trained_connectivity
from modulab.report.figure import ReportFigure
from modulab.report.page import Page, PageTable, Section, page_figures, render_page
from modulab.report.panels import legend_below, panel_grid
from modulab.report.shared_settings import shared_settings
from modulab.report.style import arm_styles, arm_text, drawing, label
from modulab.report.sweep_report import describe, write_report
from modulab.results.showing import show_results
from modulab.results.summary import summarise
from modulab.training.learner import initialise
from tests.command_line import SMALL, Command
from tests.report.tables import sweep_results


class Reader(HTMLParser):
    """Collects what a page loads, links to and shows in cells."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("img", "link", "iframe", "source") or "src" in named:
            self.loaded.append(named.get("src") or named.get("href") or "")
        if tag == "a":
            self.links.append(named.get("href") or "")
        if tag == "td":
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text())
    return reader


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    grid = "population.grid={architecture: [dense, premodular], noise.scale: [0, 0.2]}"
    few = ["probes.measures.ranges=null", "probes.measures.ablated_units=null"]  # fewer figures to draw
    modulab.train([*SMALL, *few, grid, "population.seeds=2"], folder=folder)
    return folder


@pytest.fixture(scope="module")
def page(trained: Path) -> Path:
    return write_report(trained)


def test_the_page_loads_nothing_but_itself_and_links_to_files_beside_it(page: Path) -> None:
    reader = read(page)
    assert reader.loaded
    assert all(source.startswith("data:image/") for source in reader.loaded)
    for link in reader.links:
        assert link.startswith("#") or (page.parent / link).is_file(), link
    without_libraries = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import""", without_libraries)


def test_every_number_in_the_tables_is_one_of_the_results(page: Path, trained: Path) -> None:
    results = modulab.load_results(trained)
    summary = summarise(results, None, ["*"])
    numbers = {
        f"{value:.3g}"
        for frame in (summary.mean, summary.low, summary.high)
        for value in frame.to_numpy().ravel()
    }
    known = numbers | {str(value) for column in results for value in results[column].unique()}
    known |= {
        text
        for column in results.select_dtypes("number")
        for value in results[column].unique()
        for text in (f"{value:g}", f"{value:.3g}")
    }
    names = {column.removeprefix("config.") for column in results}
    names |= {words for name in names for words in (with_arrow(name, better(name)), label(name))} | {""}
    shared = shared_settings(results)  # their defaults and meanings are not results
    names |= {
        cell
        for rows in (shared.tables[0].rows, shared.sections[0].tables[0].rows)
        for row in rows
        for cell in row
    }
    cells = [cell for cell in read(page).cells if cell not in names]
    assert len(cells) > 40
    for cell in cells:
        parts = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", cell)
        for part in parts.groups() if parts else [cell]:
            assert part in known or part in ("-", "2"), cell


def test_data_beside_the_page_is_what_the_results_say(page: Path, trained: Path) -> None:
    results = modulab.load_results(trained)
    data = pd.read_csv(page.parent / "measures.csv")
    means = data[(data["shown"] == "mean") & (data["measure"] == "error/test")]
    expected = results.groupby(["config.architecture.name", "config.noise.scale"])["error/test"].mean()
    for row in means.to_dict("records"):
        assert row["value"] == pytest.approx(
            expected[row["architecture.name"], row["noise.scale"]], rel=1e-14
        )
    assert len(means) == len(expected) == 4


def test_the_same_results_give_the_same_page(page: Path, trained: Path, tmp_path: Path) -> None:
    again = write_report(trained, tmp_path / "again")
    assert again.read_bytes() == page.read_bytes()


def test_connectivity_has_the_modularity_of_the_table_and_begins_at_initial_weights(trained: Path) -> None:
    results = modulab.load_results(trained).set_index("run_id")
    found = trained_connectivity(trained, list(results.index))
    assert len(found) == len(results)
    for run_id, (before, after) in found.items():
        assert after.structural == results.loc[run_id, "modularity/structural"]
        assert before.structural != after.structural or before.structural == 1
    both = results.groupby(["config.architecture.name", "config.seed"])
    for _, same_seed in both:  # noise does not touch initial weights
        one, other = (found[run_id][0] for run_id in same_seed.index)
        assert all((a == b).all() for a, b in zip(one.weights, other.weights, strict=True))


def test_drawn_weights_are_those_of_the_network_in_another_order(trained: Path) -> None:
    results = modulab.load_results(trained)
    run_id = str(results["run_id"].iloc[0])
    _, drawn = trained_connectivity(trained, [run_id])[run_id]
    seed, noise = results["config.seed"].iloc[0], results["config.noise.scale"].iloc[0]
    for population in modulab.load_members(trained):
        for place, config in enumerate(population.configs):
            if (config["seed"], config["noise"]["scale"], config["architecture"]["name"]) == (
                seed,
                noise,
                "dense",
            ):
                first, second = (
                    population.weights[name][place].abs().double().numpy()
                    for name in ("weight.0", "weight.1")
                )
                assert (drawn.weights[0] == first[drawn.units[1]]).all()
                assert (drawn.weights[1] == second[:, drawn.units[1]]).all()
                return
    pytest.fail("the member is in no population")


def test_units_are_sorted_by_module_then_by_strength_and_silent_ones_last() -> None:
    strengths = torch.tensor(
        [[0.0, 2.0], [0.0, 0.0], [3.0, 1.0], [5.0, 0.0], [1.0, 9.0]], dtype=torch.float64
    )
    order, modules = sort_units(strengths, strengths.sum(dim=1))
    assert order.tolist() == [3, 2, 4, 0, 1]
    assert modules.tolist() == [0, 0, 1, 1, SILENT]


def test_one_network_alone_has_a_report(command: Command) -> None:
    command("train", *SMALL, "hydra.run.dir=run")
    code, out, err = command("report", "run", "--output", "page")
    assert (code, err) == (0, "")
    assert out.startswith("Report: page/report.html\nTrained by:\n  modulab train ")
    text = Path("page/report.html").read_text()
    assert "1 network: 1 completed." in text
    assert "modulab train" in text
    assert "modulab rerun run --member 0" in text
    assert Path("page/connectivity.png").exists()


def test_the_command_on_the_page_is_the_one_that_was_given(command: Command) -> None:
    grid = "population.grid={noise.scale: [0, 0.1]}"
    command("train", *SMALL, grid, "hydra.run.dir=run")
    command("train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
    for folder, words in (
        ("run", ["modulab train training.steps=4", grid]),
        ("sweep", ["modulab train -m", "seed=0,1"]),
    ):
        page = describe(modulab.load_results(folder), Path(folder))
        (shown,) = next(section.commands for section in page.sections if section.title == "How to repeat it")
        assert all(word in shown for word in words), shown
        assert "~population" not in shown


def test_the_grid_is_restored_as_it_was_written() -> None:
    given = ["seed=1", "population.grid=[{noise.scale: [0, 1]}]", "training.steps=2"]
    assert restore_grid(replace_grid(given)) == given


def test_a_report_on_nothing_says_where_to_look(command: Command) -> None:
    code, _, err = command("report", "nowhere")
    assert code == 2
    assert "there is no such path" in err


def page_text(results: pd.DataFrame, tmp_path: Path) -> str:
    return render_page(describe(results, tmp_path))


def test_members_without_a_result_are_said_plainly(tmp_path: Path) -> None:
    results = sweep_results(noise__scale=[0.0, 0.1])
    results.loc[0, ["status", "error"]] = ["failed", "RuntimeError: out of memory"]
    results.loc[[1, 2], "status"] = "missing"
    text = page_text(results, tmp_path)
    assert "6 networks: 1 failed, 2 missing, 3 completed." in text
    assert "1 failed: RuntimeError: out of memory." in text
    assert "2 missing." in text


def test_measures_that_lack_for_the_same_reason_are_said_together(tmp_path: Path) -> None:
    results = sweep_results(noise__scale=[0.0, 0.1])
    results["skipped"] = [
        "a: no layers; b: no layers",
        "b: no layers; c: failed with KeyError: 'x'",
        None,
    ] * 2
    text = page_text(results, tmp_path)
    said = re.sub(r"(<[^>]*>|\s)+", " ", text)
    assert "Not measured a, b: no layers Not measured c: failed with KeyError" in said


def test_a_sweep_of_which_nothing_completed_has_a_report(tmp_path: Path) -> None:
    results = sweep_results(noise__scale=[0.0, 0.1]).assign(status="failed", error="no memory")
    assert "6 failed: no memory." in page_text(results, tmp_path)
    assert page_figures(describe(results, tmp_path)) == []


def test_text_from_results_is_escaped() -> None:
    table = PageTable(["<b>"], [["a & b"]])
    text = render_page(Page("<script>", sections=[Section("s", ["1 < 2"], tables=[table])]))
    assert "<title>&lt;script&gt;</title>" in text
    assert "&lt;b&gt;" in text
    assert "a &amp; b" in text


def names(figures: list[ReportFigure]) -> set[str]:
    return {figure.name for figure in figures}


def test_a_number_lies_along_the_axis_and_names_are_arms() -> None:
    layout = choose_layout(
        sweep_results(noise__scale=[0, 0.1, 0.2], architecture__name=["dense", "premodular"])
    )
    assert (layout.x, layout.arm, layout.row) == ("config.noise.scale", "config.architecture.name", None)


def test_names_alone_are_strips_and_several_of_them_are_joined() -> None:
    layout = choose_layout(sweep_results(architecture__name=["dense", "premodular"], noise__name=["a", "b"]))
    assert (layout.x, layout.arm) == (None, ARM)
    assert layout.arms == ["dense, a", "dense, b", "premodular, a", "premodular, b"]


def test_two_numbers_span_a_map(tmp_path: Path) -> None:
    results = sweep_results(noise__scale=[0, 0.1, 0.2], data__num_samples=[10, 100, 1000])
    assert choose_layout(results).plane == ("config.noise.scale", "config.data.num_samples")
    assert "map" in names(page_figures(describe(results, tmp_path)))


def test_more_arms_than_colours_get_rows_of_panels() -> None:
    results = sweep_results(
        noise__scale=[0, 0.1, 0.2, 0.4], data__num_samples=[10, 100, 1000],
        architecture__name=["a", "b", "c"], task__support=["full", "band"],
    )  # fmt: skip
    layout = choose_layout(results)
    assert layout.row == "config.task.support"
    assert layout.readable
    members, _, _, word = split_for_curves(layout)
    assert set(members["config.noise.scale"]) == {0.4}
    assert word == "Only networks with noise.scale = 0.4."


def test_pictures_are_of_one_seed_at_both_ends_of_the_axis() -> None:
    results = sweep_results(noise__scale=[0.2, 0, 0.1], architecture__name=["dense", "premodular"])
    chosen = results.set_index("run_id").loc[list(choose_pictures(choose_layout(results)).values())]
    assert set(chosen["config.seed"]) == {0}
    assert sorted(chosen["config.noise.scale"]) == [0, 0, 0.2, 0.2]


def test_a_report_of_seeds_alone_shows_each_of_them(tmp_path: Path) -> None:
    results = sweep_results(noise__scale=[0.1], seeds=5)
    figures = {figure.name: figure for figure in page_figures(describe(results, tmp_path))}
    data = figures["measures"].data
    members = data[(data["measure"] == "error/test") & (data["shown"] == "member")]
    assert sorted(members["value"]) == sorted(results["error/test"])


def test_initial_weights_do_not_depend_on_company() -> None:
    from modulab.networks.perceptron import Perceptron
    from tests.members import make_member

    shape = Perceptron(2, (6,), 2, "relu")
    members = [make_member(seed=seed, architecture__width=6) for seed in range(3)]
    together = initialise(members, shape)[1]
    for place, member in enumerate(members):
        assert torch.equal(initialise([member], shape)[1][0], together[place])


def test_rows_of_a_table_lead_to_sections_and_have_sentences_across_all_columns() -> None:
    section = Section("C1. Noise & more")
    table = PageTable(
        ["claim", "verdict"], [["C1", "depends"], ["C2", "supported"]],
        notes=["on <noise>", ""], links=[section.anchor, section.anchor],
    )  # fmt: skip
    page = render_page(Page("Verdicts", sections=[Section("Table", tables=[table]), section]))
    assert page.count(f'<a href="#{section.anchor}">') == 2
    assert f'id="{section.anchor}"' in page
    assert re.findall(r'<tr class="note"><td colspan="(\d)"><span>(.*?)</span></td>', page) == [
        ("2", "on &lt;noise&gt;")
    ]


def test_many_values_of_a_setting_are_told_as_their_number_and_range() -> None:
    many = sweep_results(seeds=1, noise__scale=[number / 20 for number in range(20)])
    assert "Settings that vary: noise.scale (20 values from 0 to 0.95)." in lead_of(many)
    few = sweep_results(seeds=1, noise__scale=[0.0, 0.5])
    assert "Settings that vary: noise.scale (0, 0.5)." in lead_of(few)
    words = sweep_results(seeds=1, architecture__name=[f"name{number}" for number in range(20)])
    assert "architecture.name (20 values)" in lead_of(words)
    drawn = sweep_results(seeds=1, noise__scale=[0.123456 + number / 20 for number in range(20)])
    assert "noise.scale (20 values from 0.123 to 1.07)" in lead_of(drawn)
    assert "σ = 0.1235" in " ".join(choose_pictures(choose_layout(drawn)))


def test_measures_without_a_figure_are_in_a_table_of_all_measures(trained: Path) -> None:
    results = modulab.load_results(trained)
    own = results.assign(**{"own/score": range(len(results))})
    (section,) = [each for each in describe(own, trained).sections if each.title == "All measures"]
    (table,) = section.tables
    assert section.folded
    assert len(table.headings) == 2 + 4
    assert "dense, σ = 0.2" in table.headings
    rows = {row[0]: row[1:] for row in table.rows}
    means = (
        results.assign(score=range(len(results)))
        .groupby(["config.architecture.name", "config.noise.scale"], sort=False)["score"]
        .mean()
    )
    assert [float(cell.partition(" ")[0]) for cell in rows["own/score"][1:]] == means.tolist()
    assert rows["error/test ↓"][0] == "Test error"
    assert not any("@" in name for name in rows)
    seeds = results.loc[
        (results["config.architecture.name"] == "dense") & (results["config.noise.scale"] == 0)
    ]
    (section,) = [each for each in describe(seeds, trained).sections if each.title == "All measures"]
    assert section.tables[0].headings == ("measure", "in words", "all networks")
    many = sweep_results(seeds=1, noise__scale=[number / 20 for number in range(20)])
    assert "All measures" not in [each.title for each in describe(many, trained).sections]


def lead_of(results: pd.DataFrame) -> str:
    return " ".join(describe(results, Path("folder")).lead)


def test_columns_are_numbers_texts_or_long_texts_and_headings_break_between_the_parts_of_a_name() -> None:
    row = ["0.5 [0.4, 0.6] times", "-", "270 in 1 of 3 looks", "a text of more than two dozen letters"]
    names = ["error_under/poisson@0.3", "data.num_samples", "looks <b>", "words"]
    table = PageTable(names, [row, ["1", "2", "-", "-"]])
    assert table.numeric == [True, True, False, False]
    assert table.wordy == [False, False, False, True]
    assert table.print_look == ("level", 7.0)
    page = render_page(Page("Page", sections=[Section("Table", tables=[table])]))
    headings = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', page)
    measure = "error_<wbr>under/<wbr>poisson@<wbr>0.3"
    assert headings == [measure, "data.<wbr>num_<wbr>samples", "looks &lt;b&gt;", "words"]


ODD = ("$\\frac", "[/red]", "[red]x", "{0}", "_hidden", "<b>&", "%s", ":smile:", "a\x1b[2J")


def test_odd_names_of_settings_and_measures_are_text_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = sweep_results(seeds=2, architecture__name=list(ODD), noise__name=["$x_{$", "[bold]"])
    results["my/$\\frac[1]"] = results["my/{level}"] = results["error/test"]
    results.loc[0, ["status", "error"]] = ["failed", "[/oops] $_{ {0}"]
    results["skipped"] = "mine: failed with ValueError: [my] $bug"
    told = f"{len(results)} without a measure: probes.measures.mine: failed with ValueError: [my] $bug"
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda console: True))
    monkeypatch.setenv("COLUMNS", "400")
    show_results(results, None, ["my/$\\frac[1]", "my/{level}"])
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    for name in (*ODD[:-1], "a\\x1b[2J", "$x_{$", "[bold]", "my/$\\frac[1]", "[/oops] $_{ {0}"):
        assert name in shown
    assert told in shown
    page = render_page(describe(results, tmp_path))
    assert f"<p>{told}.</p>" in page
    for name in ODD[:-1]:
        assert html.escape(name) in page


def test_a_legend_names_every_arm_as_it_is() -> None:
    styles = arm_styles(ODD)
    figure, _ = panel_grid(1)
    names = [arm_text(name) for name in ODD]
    legend_below(figure, names, styles, "$title_{")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names


def test_a_legend_has_few_rows_that_fit_into_its_figure() -> None:
    long, short = "squared weights times activity", [f"noise {number}" for number in range(9)]
    for panels, arms, columns in ((1, [long, *short], 3), (3, short[:5], 5), (1, [long * 3, short[0]], 1)):
        with drawing():
            figure, _ = panel_grid(panels)
            legend_below(figure, arms, arm_styles(arms), None)
            figure.draw_without_rendering()
        (legend,) = figure.legends
        assert legend._ncols == columns
        assert columns == 1 or legend.get_window_extent().width < figure.bbox.width


def test_a_label_with_braces_of_its_own_is_text() -> None:
    column = Column("my/{level}", "Set {0, 1} at {level}")
    assert column.label_of("my/{x}") == "Set {0, 1} at {x}"


def test_a_page_says_that_curves_cannot_be_read_and_nothing_where_there_are_none(tmp_path: Path) -> None:
    def words() -> list[str]:
        sections = describe(sweep_results(), tmp_path).sections
        return [word for each in sections if each.title == "During training" for word in each.paragraphs]

    assert words() == []
    (tmp_path / "curves.parquet").write_bytes(b"PAR1 cut off")
    (told,) = words()
    assert told.startswith("No figure can be made. ")
    assert "curves.parquet is damaged" in told
