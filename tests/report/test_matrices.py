"""Matrices of one network on a page: what a cell under the pointer says is what the figure's data say."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from modulab.report import communities_figure, connectivity_figure
from modulab.report.communities import PicturedModules, SortedGraph
from modulab.report.connectivity import SILENT, Connectivity
from modulab.report.figure import ReportFigure
from modulab.report.matrices import colour_stops
from modulab.report.page import Page, PageTable, Section, page_charts, write_page
from tests.report.browser import Browser, browser
from tests.report.test_interactive_page import in_browser, tip

RUN_ID = "run007"


def pictured(seed: int) -> Connectivity:
    """Return a network of two inputs, three hidden units and two outputs in some order, one of them silent."""
    random = np.random.default_rng(seed)
    units = [np.arange(2), np.array([2, 0, 1]), np.arange(2)]
    modules = [np.array([0, 1]), np.array([0, 1, SILENT]), np.array([0, 1])]
    return Connectivity([random.random((3, 2)), random.random((2, 3))], units, modules, 0.25)


def weights_figure() -> ReportFigure:
    networks = {"dense": (pictured(0), pictured(1))}
    return connectivity_figure.connectivity_figure(
        networks, name="connectivity", title="Connectivity", run_ids={"dense": RUN_ID}
    )


def found_modules() -> PicturedModules:
    weights = np.array([[0, 4, 0, 0], [4, 0, 1, 0], [0, 1, 0, 3], [0, 0, 3, 0]], dtype=float)
    own = SortedGraph(weights, np.array([1, 3, 0, 2]), np.array([0, 0, 1, 1]))
    names = ["inputs 0", "inputs 1", "hidden.0 0", "hidden.0 1"]
    return PicturedModules("louvain", own, own, np.eye(4), names)


def modules_figure() -> ReportFigure:
    return communities_figure.modules_figure({"dense": found_modules()}, name="modules", title="Modules")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("matrices")
    networks = PageTable(
        ["run_id", "noise.scale"], [[RUN_ID, "0.3"], ["run008", "0.4"]], networks=[RUN_ID, "run008"],
        settings=["noise.scale"], repeat="modulab rerun folder --member",
    )  # fmt: skip
    sections = [
        Section("Pictures", [], [weights_figure(), modules_figure()]),
        Section("N", tables=[networks]),
    ]
    path = write_page(Page("Matrices", sections=sections), folder)
    with browser(folder / "profile") as started:
        started.resize(1400)
        started.open(path)
        yield started
        assert started.errors == []
        assert all(url.startswith(("file:", "data:")) for url in started.requests), started.requests


def images(page: Browser, figure: str) -> list[dict[str, float]]:
    """Return where in the window each matrix of a figure is, once all of its panels are drawn."""
    page.evaluate(f"document.querySelector('#{figure}').scrollIntoView({{block: 'start'}})")
    page.wait(f"document.querySelectorAll('#{figure} .view:not(.drawn)').length === 0")
    return page.evaluate(
        f"[...document.querySelectorAll('#{figure} image')].map(image => image.getBoundingClientRect())"
        ".map(box => ({x: box.x, y: box.y, width: box.width, height: box.height}))"
    )


def said_of(page: Browser, x: float, y: float) -> list[str]:
    page.mouse("mouseMoved", x, y)
    page.wait("!document.querySelector('.tip').hidden")
    return page.evaluate("[...document.querySelectorAll('.tip div')].map(line => line.textContent)")


@in_browser
def test_a_cell_of_a_weight_matrix_says_its_units_its_weight_and_its_network(page: Browser) -> None:
    boxes = images(page, "connectivity")
    assert len(boxes) == 4
    data = weights_figure().data
    for place, box in enumerate(boxes):
        own = data[(data["state"] == data["state"].unique()[place % 2]) & (data["layer"] == 1 + place // 2)]
        for row in own.to_dict("records"):
            hidden, other = ("to", "from") if row["layer"] == 1 else ("from", "to")
            x = box["x"] + (row[f"{hidden}_place"] + 0.5) / 3 * box["width"]
            y = box["y"] + (row[f"{other}_place"] + 0.5) / 2 * box["height"]
            module = row[f"{hidden}_module"]
            role = "silent" if module == SILENT else f"serves module {module + 1}"
            end, letter = ("Input", "x") if row["layer"] == 1 else ("Output", "y")
            assert said_of(page, x, y) == [
                f"|Weight|: {float('{:.3g}'.format(row['absolute_weight'])):g}",
                f"Hidden unit {row[f'{hidden}_unit']}, {role}",
                f"{end} {row[f'{other}_unit']}, {letter}{row[f'{other}_module'] + 1}",
                f"run_id: {RUN_ID}",
                "noise.scale: 0.3",
            ]


@in_browser
def test_arrow_keys_go_to_the_cell_beside_and_enter_selects_the_network(page: Browser) -> None:
    images(page, "connectivity")
    page.evaluate("document.querySelector('#connectivity .view').focus()")
    cells = {
        "ArrowRight": ("Hidden unit 2, serves module 1", "Input 0, x1"),
        "ArrowDown": ("Hidden unit 2, serves module 1", "Input 1, x2"),
    }
    for key, words in cells.items():
        page.press(key)
        lines = page.evaluate("[...document.querySelectorAll('.tip div')].map(line => line.textContent)")
        assert tuple(lines[1:3]) == words
    page.press("ArrowLeft")  # there is none beside
    page.press("ArrowRight")
    assert tip(page).keys() >= {"|Weight|", "run_id"}
    assert "Hidden unit 0, serves module 2" in page.evaluate("document.querySelector('.tip').textContent")
    page.press("Enter")
    assert page.evaluate("document.querySelector('.selection code').textContent").endswith(RUN_ID)


@in_browser
def test_found_modules_say_their_nodes_and_what_lies_between_them(page: Browser) -> None:
    boxes = images(page, "modules")
    assert len(boxes) == 3
    own = boxes[0]
    x, y = (own[axis] + 1.5 / 4 * own[length] for axis, length in (("x", "width"), ("y", "height")))
    expected = ["Weight: 1", "inputs 0, module 2", "hidden.0 1, module 1"]
    assert said_of(page, x + own["width"] / 4, y) == expected
    circles = page.evaluate(
        "[...[...document.querySelectorAll('#modules .view')].at(-1).querySelectorAll('.mark-symbol path')]"
        ".map(mark => mark.getBoundingClientRect()).filter(box => box.width > 6)"
        ".map(box => ({x: box.x + box.width / 2, y: box.y + box.height / 2}))"
    )
    (first, second) = circles[:2]
    assert said_of(page, first["x"], first["y"]) == ["Share of all weight: 0.5", "2 nodes", "module 1"]
    middle = ((first["x"] + second["x"]) / 2, (first["y"] + second["y"]) / 2)
    assert said_of(page, *middle) == ["Share of all weight: 0.125", "between modules 1 and 2"]


@in_browser
def test_a_matrix_is_a_table_for_readers_who_do_not_see_it(page: Browser) -> None:
    page.evaluate("document.querySelector('#connectivity .values summary').click()")
    page.wait("document.querySelectorAll('#connectivity .values table').length === 4")
    texts = page.evaluate(
        "[...document.querySelector('#connectivity .values table').rows].map(row => [...row.cells].map("
        "cell => cell.textContent))"
    )
    weights = pictured(0).weights[0].T
    assert texts[0] == [
        "",
        "Hidden unit 2, serves module 1",
        "Hidden unit 0, serves module 2",
        "Hidden unit 1, silent",
    ]
    assert [row[0] for row in texts[1:]] == ["Input 0, x1", "Input 1, x2"]
    assert [[float(text) for text in row[1:]] for row in texts[1:]] == [
        [float(f"{value:.3g}") for value in row] for row in weights
    ]


@in_browser
def test_the_image_of_a_matrix_changes_with_the_colour_scheme(page: Browser) -> None:
    images(page, "connectivity")
    address = "document.querySelector('#connectivity image').getAttribute('href') || ''"
    light = page.evaluate(address)
    assert light.startswith("data:image/png")
    page.resize(1400, dark=True)
    page.wait(f"({address}) !== {light!r}")
    page.resize(1400)
    page.wait(f"({address}) === {light!r}")


def test_a_page_has_the_numbers_of_the_matrices_and_names_their_network() -> None:
    figure = weights_figure()
    charts = page_charts(Page("Page", sections=[Section("Pictures", [], [figure])]))
    panels = charts["figures"]["connectivity"]["panels"]
    data = figure.data
    for place, panel in enumerate(panels):
        own = data[(data["state"] == data["state"].unique()[place % 2]) & (data["layer"] == 1 + place // 2)]
        assert sorted(panel["matrix"]["values"]) == pytest.approx(sorted(own["absolute_weight"]), rel=5e-3)
        assert charts["networks"][panel["network"]] == RUN_ID
    assert [panel["heading"] for panel in panels] == ["dense", "", "", ""]


def test_matrices_of_too_many_cells_are_shown_as_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connectivity_figure, communities_figure):
        monkeypatch.setattr(module, "MOST_CELLS", 23)
    assert weights_figure().chart is None
    assert modules_figure().chart is None
    monkeypatch.setattr(connectivity_figure, "MOST_CELLS", 24)
    assert weights_figure().chart is not None


def test_colours_of_matrices_begin_at_the_ground_and_become_steadily_stronger() -> None:
    for name in ("Blues", "Greys"):
        for scheme, sign in (("light", -1), ("dark", 1)):
            lightness = np.array([sum(to_rgb(colour)) for colour in colour_stops(name)[scheme]])
            assert (sign * np.diff(lightness) > 0).all()
        assert colour_stops(name)["dark"][0] == "#202225"


def test_writing_a_page_keeps_the_drawings_of_matrices(tmp_path: Path) -> None:
    page = Page("Page", sections=[Section("Pictures", [], [weights_figure(), modules_figure()])])
    write_page(page, tmp_path)
    for name in ("connectivity", "modules"):
        assert (tmp_path / f"{name}.svg").read_bytes().startswith(b"<?xml")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_long_name_above_pictures_of_modules_leaves_them_side_by_side() -> None:
    name = "premodular, training steps 4000 (seed 0, trained to test error 0.000053)"
    figure = communities_figure.modules_figure({name: found_modules()}, name="modules", title="Modules")
    figure.png()
    places = [axes.get_position() for axes in figure.figure.axes[:3]]
    first, second = (after.x0 - before.x1 for before, after in pairwise(places))
    assert first == pytest.approx(second, abs=0.01)
    assert name in {text.get_text() for text in figure.figure.axes[0].texts}
