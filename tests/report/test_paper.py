"""Pages on paper: what decides is whole, tables have the size that they need, and rows of networks stay away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from modulab.report.networks import MOST_PRINTED, networks_section
from modulab.report.page import Page, PageTable, Section, render_page, write_page
from modulab.report.planes import front_figure
from tests.report.browser import Browser, browser
from tests.report.tables import sweep_results
from tests.report.test_interactive_page import ERROR, MODULARITY, in_browser

INTERVAL = "-0.000632 [-0.00824, 0.00785]"
MANY = sweep_results(seeds=100, noise__scale=[0.0, 0.1, 0.2])
FEW = MANY[: MOST_PRINTED // 2]
PAGE_WIDTH, PAGE_HEIGHT = 700, 940
"""CSS pixels between the margins of the smaller of US letter and A4 in each direction."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("paper")
    words = "excess of structural modularity at 0.2 minus that without noise"
    verdicts = PageTable(
        ["claim", "in words", "verdict", "quantity", "effect [95% interval]", "networks"],
        [["C1", "A claim of some words", "not supported", words, INTERVAL, "54 in 1 look, at most 540"]] * 16,
    )
    arms = PageTable(
        ["noise.scale", *[f"measure/number_{place}" for place in range(6)]], [["0.1", *[INTERVAL] * 6]] * 120
    )
    figure = front_figure(FEW, ERROR, MODULARITY, name="front", title="Front")
    sections = [
        Section("Verdicts", tables=[verdicts], figures=[figure]),
        Section("Arms", tables=[arms], folded=True),
        networks_section(MANY, Path("many"), [ERROR], title="Many", folded=True),
        networks_section(FEW, Path("few"), [ERROR], title="Few"),
    ]  # fmt: skip
    path = write_page(Page("On paper", sections=sections), folder)
    with browser(folder / "profile") as started:
        started.resize(PAGE_WIDTH)
        started.open(path)
        started.send("Emulation.setEmulatedMedia", media="print")
        started.evaluate(
            "document.querySelectorAll('details:not(.values)').forEach(part => part.open = true)"
        )
        yield started
        assert started.errors == []


@in_browser
def test_rows_of_many_networks_are_not_printed_and_their_place_is(page: Browser) -> None:
    shown = "[...document.querySelectorAll('.networks')].map(table => table.checkVisibility())"
    assert page.evaluate(shown) == [False, True]
    [said] = page.evaluate("[...document.querySelectorAll('.on-paper')].map(text => text.innerText)")
    assert said.startswith("300 networks: 300 completed.")
    assert "many/results.parquet" in said
    assert "modulab table many" in said
    page.send("Emulation.setEmulatedMedia", media="screen")
    assert page.evaluate(shown) == [True, True]
    assert not page.evaluate("document.querySelector('.on-paper').checkVisibility()")
    page.send("Emulation.setEmulatedMedia", media="print")


@in_browser
def test_verdicts_and_figures_stay_whole_and_fit_a_page(page: Browser) -> None:
    for selector in (".table.unbroken", "figure"):
        whole = f"document.querySelector('{selector}')"
        assert page.evaluate(f"getComputedStyle({whole}).breakInside") == "avoid"
        box = page.evaluate(f"(({{width, height}}) => [width, height])({whole}.getBoundingClientRect())")
        assert box[0] <= PAGE_WIDTH
        assert box[1] <= PAGE_HEIGHT


@in_browser
def test_a_long_table_fits_the_width_with_its_intervals_whole_below_their_numbers(page: Browser) -> None:
    table = "document.querySelector('#arms table')"
    assert page.evaluate(f"{table}.className") == "stacked"
    assert page.evaluate(f"{table}.getBoundingClientRect().width") <= PAGE_WIDTH
    lines = page.evaluate(
        f"[...{table}.querySelectorAll('.interval')].map(text => text.getClientRects().length)"
    )
    assert set(lines) == {1}
    heights = page.evaluate(f"[...{table}.tBodies[0].rows].map(row => row.getBoundingClientRect().height)")
    assert PAGE_HEIGHT / max(heights) > 35


@in_browser
def test_headings_of_a_long_table_hold_nothing_that_keeps_them_from_each_page(page: Browser) -> None:
    buttons = "[...document.querySelectorAll('th button')].map(button => getComputedStyle(button).display)"
    assert set(page.evaluate(buttons)) == {"contents"}


@in_browser
def test_intervals_of_wide_tables_stand_below_their_numbers_on_screens_too_so_that_all_columns_show(
    page: Browser,
) -> None:
    page.resize(1400)
    page.send("Emulation.setEmulatedMedia", media="screen")
    display = "getComputedStyle(document.querySelector('{} .interval')).display"
    assert page.evaluate(display.format("#arms")) == "block"
    assert page.evaluate(display.format("table.level")) == "inline"
    box = "document.querySelector('#arms .table')"
    assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    page.resize(PAGE_WIDTH)
    page.send("Emulation.setEmulatedMedia", media="print")


@in_browser
def test_hundreds_of_networks_add_no_pages(page: Browser) -> None:
    pages = len(re.findall(rb"/Type /Page\b", page.pdf()))
    page.evaluate("document.querySelector('#many').remove()")
    assert len(re.findall(rb"/Type /Page\b", page.pdf())) in (pages, pages - 1)
    page.evaluate("document.querySelector('#few').remove()")
    page.evaluate("document.querySelector('#arms').remove()")
    assert len(re.findall(rb"/Type /Page\b", page.pdf())) < pages - 1


def test_columns_decide_the_size_and_the_lines_of_a_printed_table() -> None:
    def look(columns: int) -> tuple[str, float]:
        return PageTable(["error/test"] * columns, [[INTERVAL] * columns]).print_look

    assert look(2) == ("level", 7.0)
    assert look(5)[0] == "level"
    assert look(7)[0] == "stacked"
    assert look(12)[0] == "divided"
    assert look(30)[0] == "wide"
    sizes = [look(columns)[1] for columns in range(2, 6)]
    assert sizes == sorted(sizes, reverse=True)


def test_an_interval_is_marked_in_numbers_alone_and_all_is_text() -> None:
    table = PageTable(["number", "text"], [["1 [0, 2] times", "<b> [0, 2]"], ["-", "-"]])
    page = render_page(Page("Page", sections=[Section("Table", tables=[table])]))
    assert (
        '<td class="number">1 <span class="interval">[0, 2]</span> times</td><td>&lt;b&gt; [0, 2]</td>'
        in page
    )


def test_few_networks_are_printed_and_no_others() -> None:
    few = networks_section(FEW, Path("few"), [ERROR]).tables[0]
    many = networks_section(MANY, Path("many"), [ERROR]).tables[0]
    assert few.on_paper == ""
    assert many.on_paper
    assert networks_section(FEW, Path("few"), [ERROR], most_printed=0).tables[0].on_paper
