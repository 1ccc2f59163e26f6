"""Pictures of modules: they show what the results tell, and sum up what lies between modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import modulab
from modulab.report.communities import PicturedModules, SortedGraph, modules_data, pictured_modules
from modulab.report.sweep_report import describe
from tests.command_line import SMALL, last_given

FEW = [
    "probes=communities",
    *(f"probes.measures.found_{name}.restarts=2" for name in ("louvain", "activity", "influence")),
    *(f"probes.measures.found_{name}.randomised=2" for name in ("louvain", "activity", "influence")),
    "probes.measures.found_spectral=null",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found")
    grid = "population.grid={architecture: [dense, premodular], noise.scale: [0, 0.2]}"
    modulab.train(
        last_given(*SMALL, *FEW, grid, "population.seeds=3", "architecture.width=12"), folder=folder
    )
    return folder


def test_pictures_show_the_modules_that_the_results_count(trained: Path) -> None:
    results = modulab.load_results(trained).set_index("run_id")
    found = pictured_modules(trained, list(results.index))
    assert list(found) == list(results.index)
    for run_id, each in found.items():
        assert each.search == "louvain"
        assert len(set(each.own.modules.tolist())) == results.loc[run_id, "communities/louvain_modules"]
        assert len(each.own.nodes) == 16 - results.loc[run_id, "communities/louvain_left_out"]
        assert (np.diff(each.own.modules) >= 0).all()
        between = each.between()
        assert np.triu(between).sum() == pytest.approx(1)


def test_report_has_pictures_where_modules_were_searched_for(trained: Path) -> None:
    page = describe(modulab.load_results(trained), trained)
    [section] = [section for section in page.sections if section.title == "Modules found"]
    assert [figure.name for figure in section.figures] == ["modules_and_excess", "modules_found", "modules"]
    assert len(section.figures[-1].png()) > 10_000
    results = modulab.load_results(trained).set_index("run_id")
    chart = section.figures[0].chart
    assert chart is not None
    for panel, kind in zip(chart.panels, ("modules", "agreement"), strict=True):
        rows = panel.rows.loc[(panel.rows["arm"] == "louvain") & (panel.rows["shown"] == "member")]
        own = results.loc[rows["run_id"]]
        assert rows["x"].tolist() == own["modularity/structural_excess"].tolist()
        assert rows["value"].tolist() == own[f"communities/louvain_{kind}"].tolist()


def test_data_of_a_picture_are_the_edges_between_sorted_nodes() -> None:
    weights = np.array([[0.0, 2.0, 0.0], [2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    graph = SortedGraph(weights, np.array([4, 7, 5]), np.array([0, 0, 1]))
    pictured = PicturedModules("louvain", graph, graph, np.eye(3), [f"unit {number}" for number in range(8)])
    assert pictured.between().tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)]] * 1 + [
        [pytest.approx(1 / 3), 0]
    ]
    own = modules_data({"one": pictured}).query("graph == 'network'")
    assert own[["one_node", "other_node", "weight"]].to_numpy().tolist() == [[4, 7, 2], [7, 5, 1]]
