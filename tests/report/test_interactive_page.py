"""Pages in a real browser: tables sort and filter, figures answer to pointer and keyboard, and all is text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modulab.claims.maps.analysis import draw_map
from modulab.claims.maps.figure import map_figure
from modulab.report import networks
from modulab.report.chart import MOST_POINTS
from modulab.report.page import Page, PageTable, Section, page_charts, page_figures, write_page
from modulab.report.planes import map_figure as map_figure_of
from modulab.report.style import COLOURS, on_dark
from modulab.report.sweep_report import describe
from modulab.sweep.archive import Axis, archive_table, write_archive
from tests.claims.maps.test_maps import AXES, MAP
from tests.claims.maps.test_maps import results as map_results
from tests.report.browser import CHROMIUM, Browser, browser
from tests.report.tables import sweep_results

REQUIRED = bool(os.environ.get("MODULAB_REQUIRE_BROWSER"))
in_browser = pytest.mark.skipif(
    CHROMIUM is None and not REQUIRED, reason="needs Chromium, which is not on the PATH"
)

HOSTILE = '</script><script>document.title = "broken"</script>'
NAMES = ("dense", "$x_{$ 'q' \"r\"", HOSTILE)
ERROR, MODULARITY = "error/test", "modularity/structural"


def results() -> pd.DataFrame:
    found = sweep_results(noise__scale=[0.0, 0.1, 0.2, 0.4], architecture__name=list(NAMES))
    found.loc[3, ["status", "error"]] = ["failed", "RuntimeError: out of memory"]
    return found


def archive() -> pd.DataFrame:
    """Return an archive of six by two cells, of which three have elites."""
    axes = [Axis(MODULARITY, 0.0, 1.2, 6), Axis("activity/active_units", 0.0, 8.0, 2)]
    rows = {
        cell: {ERROR: 0.1 * (number + 1), "trial": number, "noise.scale": 0.25 * number}
        for number, cell in enumerate(((0, 0), (2, 1), (5, 0)))
    }
    return archive_table(axes, rows, [ERROR, "trial", "noise.scale"])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "it's <here>").mkdir()
    write_archive(folder / "it's <here>", archive())
    described = describe(results(), folder / "it's <here>")
    # With few settings no surface is fitted, which would take seconds.
    settings = Section("Map", figures=[map_figure(draw_map(MAP, AXES, map_results(7)))])
    claim = Section("C1. A claim", ["Its verdict."])
    verdicts = Section("Verdicts", tables=[PageTable(["claim"], [["C1"], ["C1"]], links=[claim.anchor] * 2)])
    folded = Section("Folded", ["What is folded."], folded=True)
    page = Page(
        described.title, described.lead, sections=[verdicts, *described.sections, settings, folded, claim]
    )
    path = write_page(page, folder)
    with browser(folder / "profile") as started:
        started.resize(1400)
        started.open(path)
        yield started


@pytest.fixture
def page(opened: Browser) -> Iterator[Browser]:
    opened.evaluate(
        "document.querySelector('.selection .line button:nth-of-type(2)').click(); scrollTo(0, 0)"
    )
    yield opened
    assert opened.errors == []
    assert all(url.startswith(("file:", "data:")) for url in opened.requests), opened.requests


TABLE = "document.querySelector('table[data-repeat]')"


def column(page: Browser, heading: str) -> list[str]:
    """Return the texts of a column of the table of networks, of the rows that show, from the top."""
    return page.evaluate(
        f"(() => {{ const table = {TABLE}; const place = [...table.tHead.rows[0].cells].findIndex("
        f"cell => cell.textContent === {heading!r}); return [...table.tBodies[0].rows].filter(row => !row.hidden)"
        ".map(row => row.cells[place].textContent); })()"
    )


def heading(name: str) -> str:
    return f"[...{TABLE}.tHead.rows[0].cells].find(cell => cell.textContent === {name!r})"


def type_filter(page: Browser, name: str, text: str) -> None:
    page.evaluate(
        f"(() => {{ const input = {TABLE}.tHead.querySelector('input[aria-label=\"Filter {name}\"]');"
        f"input.value = {text!r}; input.dispatchEvent(new Event('input')); }})()"
    )


def shown_marks(page: Browser, figure: str) -> list[dict[str, float]]:
    """Return the middle of every small mark of a figure's first panel, in the window, once it is scrolled to."""
    page.evaluate(f"document.querySelector('#{figure} .view').scrollIntoView({{block: 'center'}})")
    page.wait(f"document.querySelector('#{figure} .view').classList.contains('drawn')")
    return page.evaluate(
        f"[...document.querySelectorAll('#{figure} .view')[0].querySelectorAll('.mark-symbol path')]"
        ".map(mark => mark.getBoundingClientRect()).filter(box => box.width > 0 && box.width < 6)"
        ".map(box => ({x: box.x + box.width / 2, y: box.y + box.height / 2}))"
    )


def tip(page: Browser) -> dict[str, str]:
    """Return what is said of the mark under the pointer, by name."""
    lines: list[str] = page.evaluate(
        "[...document.querySelectorAll('.tip div')].map(line => line.textContent)"
    )
    return dict(line.split(": ", 1) for line in lines if ": " in line)


@in_browser
def test_a_click_on_a_heading_sorts_by_number_and_says_so(page: Browser) -> None:
    values = results()[ERROR].map("{:.3g}".format)
    page.evaluate(f"{heading(ERROR)}.querySelector('button').click()")
    assert column(page, ERROR) == sorted(values, key=float)
    assert page.evaluate(f"{heading(ERROR)}.getAttribute('aria-sort')") == "ascending"
    page.evaluate(f"{heading(ERROR)}.querySelector('button').click()")
    assert column(page, ERROR) == sorted(values, key=float, reverse=True)
    assert page.evaluate("document.querySelectorAll('table[data-repeat] [aria-sort]').length") == 1


@in_browser
def test_filters_keep_the_rows_that_the_results_have(page: Browser) -> None:
    table = results()
    type_filter(page, ERROR, ">0.5")
    type_filter(page, "status", "completed")
    kept = table[(table[ERROR] > 0.5) & (table["status"] == "completed")]
    assert sorted(column(page, "run_id")) == sorted(kept["run_id"])
    type_filter(page, ERROR, "0.2..0.4")
    kept = table[table[ERROR].between(0.2, 0.4) & (table["status"] == "completed")]
    assert sorted(column(page, "run_id")) == sorted(kept["run_id"])
    type_filter(page, ERROR, "")
    type_filter(page, "status", "")
    search = f"{TABLE}.closest('.networks').querySelector('input[type=search]')"
    page.evaluate(f"{search}.value = 'out of memory'; {search}.dispatchEvent(new Event('input'))")
    assert column(page, "run_id") == ["run003"]
    page.evaluate(f"{search}.value = ''; {search}.dispatchEvent(new Event('input'))")
    assert len(column(page, "run_id")) == len(table)


@in_browser
def test_a_mark_under_the_pointer_says_its_network_settings_and_value(page: Browser) -> None:
    table = results().set_index("run_id")
    marks = shown_marks(page, "measures")
    assert len(marks) == (table["status"] == "completed").sum()
    for mark in marks[:: len(marks) // 4]:
        page.mouse("mouseMoved", mark["x"], mark["y"])
        page.wait("!document.querySelector('.tip').hidden")
        said = tip(page)
        row = table.loc[said["run_id"]]
        assert float(said["Test error ↓"]) == pytest.approx(row[ERROR], rel=6e-3)
        assert said["noise.scale"] == f"{row['config.noise.scale']:g}"
        assert said["seed"] == str(row["config.seed"])
        assert said["architecture.name"] == row["config.architecture.name"]


@in_browser
def test_a_click_on_a_mark_shows_its_row_and_the_command_that_repeats_it(page: Browser) -> None:
    mark = shown_marks(page, "error_and_modularity")[0]
    page.click(mark["x"], mark["y"])
    [picked] = page.evaluate("[...document.querySelectorAll('tr.chosen')].map(row => row.dataset.network)")
    command = page.evaluate("document.querySelector('.selection code').textContent")
    assert command.startswith("modulab rerun '")
    assert command.endswith(f""" --member {picked}""")
    assert tip(page)["run_id"] == picked
    page.evaluate("document.querySelector('.selection .line button').click()")
    assert page.evaluate("document.activeElement.textContent") == picked


@in_browser
def test_marks_inside_a_drawn_frame_are_the_networks_of_those_values(page: Browser) -> None:
    table = results()
    marks = shown_marks(page, "error_and_modularity")
    left, right = min(mark["x"] for mark in marks), max(mark["x"] for mark in marks)
    top, bottom = min(mark["y"] for mark in marks), max(mark["y"] for mark in marks)
    middle = (top + bottom) / 2
    page.mouse("mouseMoved", left - 3, top - 3)
    page.mouse("mousePressed", left - 3, top - 3, 1)
    page.mouse("mouseMoved", right + 3, middle, 1)
    page.mouse("mouseReleased", right + 3, middle, 1)
    picked = page.evaluate("[...document.querySelectorAll('tr.chosen')].map(row => row.dataset.network)")
    done = table[table["status"] == "completed"]
    half = (done[MODULARITY].min() + done[MODULARITY].max()) / 2
    assert sorted(picked) == sorted(done.loc[done[MODULARITY] > half, "run_id"])


@in_browser
def test_arrow_keys_go_through_marks_and_enter_selects(page: Browser) -> None:
    shown_marks(page, "error_and_modularity")
    page.evaluate("document.querySelector('#error_and_modularity .view').focus()")
    errors: list[float] = []
    for _ in range(3):
        page.press("ArrowRight")
        errors.append(float(tip(page)["Test error ↓"]))
    assert errors == sorted(errors)
    page.press("ArrowRight")
    said = tip(page)
    if "run_id" in said:
        page.press("Enter")
        chosen = page.evaluate("[...document.querySelectorAll('tr.chosen')].map(row => row.dataset.network)")
        assert chosen == [said["run_id"]]


@in_browser
def test_toggles_hide_networks_intervals_and_arms(page: Browser) -> None:
    count = "document.querySelectorAll('#measures .view')[0].querySelectorAll('.mark-symbol path').length"
    areas = "document.querySelectorAll('#measures .view')[0].querySelectorAll('.mark-area path').length"
    networks = len(shown_marks(page, "measures"))
    both, shaded = page.evaluate(count), page.evaluate(areas)
    for name, left in (("seeds", both - networks), ("intervals", both)):
        box = f"document.querySelector('[data-show={name}]')"
        page.evaluate(f"{box}.click()")
        page.wait(f"{count} === {left}")
        if name == "intervals":
            page.wait(f"{areas} === 0")
        page.evaluate(f"{box}.click()")
        page.wait(f"{count} === {both}")
    assert shaded == len(NAMES)
    key = "document.querySelector('#measures .legend button')"
    page.evaluate(f"{key}.click()")
    page.wait(f"{areas} === {shaded - 1}")
    assert page.evaluate(f"{key}.getAttribute('aria-pressed')") == "false"
    page.evaluate(f"{key}.click()")


@in_browser
def test_a_cell_of_an_archive_says_its_place_and_what_is_in_it(page: Browser) -> None:
    shown_marks(page, "archive")
    cells = page.evaluate(
        "[...document.querySelectorAll('#archive .mark-rect.role-mark path')].map(cell => cell.getBoundingClientRect())"
        ".map(box => ({x: box.x + box.width / 2, y: box.y + box.height / 2}))"
    )
    table = archive()
    assert len(cells) == len(table)
    found: dict[str, dict[str, str]] = {}
    for cell in cells:
        page.mouse("mouseMoved", cell["x"], cell["y"])
        page.wait("!document.querySelector('.tip').hidden")
        said = tip(page)
        found[f"{said['Structural modularity']}, {said['Active hidden units']}"] = said
    for row in table.to_dict("records"):
        low, high = (row[f"{MODULARITY}:{end}"] for end in ("low", "high"))
        units = f"{row['activity/active_units:low']:g} to {row['activity/active_units:high']:g}"
        said = found[f"{low:g} to {high:g}, {units}"]
        if np.isnan(row[ERROR]):
            assert said["No elite"] == "never reached"
            assert "trial" not in said
        else:
            assert float(said["Test error ↓"]) == pytest.approx(row[ERROR], rel=1e-3)
            assert (said["trial"], said["noise.scale"]) == (f"{row['trial']:g}", f"{row['noise.scale']:g}")


@in_browser
def test_an_axis_shows_all_ticks_that_were_chosen_for_it(page: Browser) -> None:
    shown_marks(page, "archive")
    ticks = page.evaluate(
        "[...document.querySelectorAll('#archive .role-axis-label text')].map(label => label.textContent)"
    )
    assert [f"{0.2 * place:.3g}" for place in range(7)] == ticks[:7]


@in_browser
def test_a_setting_of_a_map_says_its_place_and_effect(page: Browser) -> None:
    marks = shown_marks(page, "map_C0")
    table = draw_map(MAP, AXES, map_results(7)).effects
    assert len(marks) == (table["task.modules"] == 2).sum()
    for mark in marks[:2]:
        page.mouse("mouseMoved", mark["x"], mark["y"])
        page.wait("!document.querySelector('.tip').hidden")
        said = tip(page)
        points = np.abs(table["data.num_samples"] - float(said["Training points N"]))
        row = table.loc[points.idxmin()]
        assert row["task.modules"] == 2
        assert float(said["Noise scale σ in training"]) == pytest.approx(row["noise.scale"], rel=6e-3)
        assert float(said["Effect"]) == pytest.approx(np.exp(row["effect"]), rel=6e-3)


@in_browser
def test_a_verdict_leads_to_its_section(page: Browser) -> None:
    page.evaluate("document.querySelector('#verdicts + * a, .table a').click()")
    assert page.evaluate("location.hash") == "#c1-a-claim"
    top = page.evaluate("document.getElementById('c1-a-claim').getBoundingClientRect().top")
    assert 0 <= top < 900


@in_browser
def test_hostile_names_are_text(page: Browser) -> None:
    assert page.evaluate("document.title") == "Report on it's <here>"
    assert HOSTILE in column(page, "architecture.name")
    legend = page.evaluate(
        "[...document.querySelectorAll('#measures .legend button')].map(key => key.textContent)"
    )
    assert legend == list(NAMES)


@in_browser
def test_dark_screens_have_other_colours_and_paper_has_all_that_is_folded(page: Browser) -> None:
    shown_marks(page, "measures")
    fill = (
        "getComputedStyle([...document.querySelectorAll('#measures .legend path')].at(1)).fill + "
        "getComputedStyle(document.body).backgroundColor"
    )
    light = page.evaluate(fill)
    page.resize(1400, dark=True)
    assert page.evaluate(fill) != light
    page.send("Emulation.setEmulatedMedia", media="print")
    shown = "document.querySelector('#measures {}').checkVisibility()"
    assert page.evaluate(shown.format(".drawing img"))
    assert not page.evaluate(shown.format(".chart"))
    page.resize(760)
    page.send("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 760
    widths = page.evaluate(
        "[...document.querySelectorAll('table')].map(table => table.getBoundingClientRect().width)"
    )
    assert max(widths) <= 760
    page.send("Emulation.setEmulatedMedia", media="")
    page.evaluate(
        "addEventListener('beforeprint', () => "
        "window.opened = [...document.querySelectorAll('details:not(.values)')].map(part => part.open))"
    )
    assert page.pdf().startswith(b"%PDF")
    assert page.evaluate("window.opened.length > 1 && window.opened.every(each => each)")
    page.resize(1400)


@in_browser
def test_narrow_screens_do_not_scroll_sideways(page: Browser) -> None:
    page.resize(400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.resize(1400)


def test_charts_hold_every_network_of_their_figures_and_the_means_of_their_data() -> None:
    table = results()
    page = describe(table, Path("folder"))
    charts = page_charts(page)
    done = table[table["status"] == "completed"].set_index("run_id")
    figures = {figure.name: figure for figure in page_figures(page)}
    [panel, *_] = charts["figures"]["measures"]["panels"]
    rows = pd.DataFrame(panel["rows"])
    members = rows[rows["m"] == 0]
    names = [charts["networks"][int(number)] for number in members["n"]]
    assert sorted(names) == sorted(done.index)
    assert members["y"].to_numpy() == pytest.approx(done.loc[names, ERROR].to_numpy(), rel=1e-5)
    assert members["x"].tolist() == done.loc[names, "config.noise.scale"].tolist()
    means = figures["measures"].data
    means = means[(means["measure"] == ERROR) & (means["shown"] == "mean")]
    assert sorted(rows.loc[rows["m"] == 1, "y"]) == pytest.approx(sorted(means["value"]), rel=1e-5)


def test_an_interval_that_ends_below_a_logarithmic_axis_is_said_as_it_is() -> None:
    table = sweep_results(noise__scale=[0.1, 0.2])
    table[ERROR] = np.where(table["config.seed"] == 0, 0.01, 0.9)
    [panel, *_] = page_charts(describe(table, Path("folder")))["figures"]["measures"]["panels"]
    assert panel["spec"]["encoding"]["y"]["scale"]["type"] == "log"
    rows = pd.DataFrame(panel["rows"])
    assert rows.loc[rows["m"] == 1, "yl"].max() < 0


def test_a_large_sweep_lists_a_random_sample_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "MOST_LISTED", 10)
    table = results()
    section = networks.networks_section(table, Path("folder"), [ERROR], most=10)
    [listed] = section.tables
    assert list(listed.networks) == sorted(table["run_id"])[:10]
    assert listed.hints[0].startswith("10 of 36 networks, a random sample.")


def test_figures_show_the_listed_networks_and_no_more_than_a_panel_holds() -> None:
    table = results()
    page = describe(table, Path("folder"))
    listed = PageTable(["run_id"], [["run000"], ["run001"]], networks=["run000", "run001"])
    sections = [section for section in page.sections if section.figures]
    charts = page_charts(Page("Page", sections=[*sections, Section("Networks", tables=[listed])]))
    assert charts["networks"] == ["run000", "run001"]
    assert charts["figures"]["measures"]["note"] == "Marks of 2 networks of 35, a random sample."
    many = sweep_results(seeds=MOST_POINTS // 2 + 10, noise__scale=[0.0, 0.1])
    many["run_id"] = [f"{number:08x}" for number in np.random.default_rng(0).permutation(len(many))]
    cells = map_figure_of(
        table, "config.noise.scale", "config.architecture.name", [ERROR], name="cells", title="Cells"
    )
    charts = page_charts(Page("Page", sections=[Section("Cells", [], [cells], [listed])]))
    assert charts["figures"]["cells"]["note"] == ""  # they show no marks of networks
    [figure, *_] = page_charts(Page("Page", sections=[describe_figures(many)]))["figures"].values()
    assert all(panel["rows"]["m"].count(0) == MOST_POINTS for panel in figure["panels"])


def describe_figures(table: pd.DataFrame) -> Section:
    from modulab.report.lines import lines_figure

    return Section(
        "Figures", figures=[lines_figure(table, "config.noise.scale", [ERROR], name="many", title="Many")]
    )


def test_colours_stand_out_from_a_dark_page() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    ground = luminance("#202225")
    for colour in (*COLOURS, "#440154"):
        assert (luminance(on_dark(colour)) + 0.05) / (ground + 0.05) >= 3
    assert on_dark("#56B4E9") == "#56b4e9"
