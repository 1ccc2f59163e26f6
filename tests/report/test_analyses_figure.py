"""Figures of analyses show the values in the results: strips with their controls, and matrices of modules."""

from __future__ import annotations

import numpy as np
import pandas as pd

from modulab.report.analyses_figure import analysis_figures


def results() -> pd.DataFrame:
    rows = 4
    found = {
        "run_id": [f"r{row}" for row in range(rows)],
        "config.seed": [0, 1, 0, 1],
        "status": ["completed"] * rows,
        "network": ["dense", "dense", "premodular", "premodular"],
        "cut/rise": [0.4, 0.6, 0.0, 0.0],
        "cut/rise_random": [0.3, 0.5, 0.2, 0.4],
        "late/error": [0.1, 0.2, 0.01, 0.02],
        "late/error_random": [0.3, 0.4, 0.5, 0.6],
        "late/error_shuffled": [0.5, 0.4, 0.3, 0.2],
    }
    for one in (1, 2):
        for other in (1, 2):
            found[f"clamp/module_{one}_on_{other}"] = [one, other, float(one == other), float(one == other)]
    for share, rise in ((0.25, 0.3), (0.5, 0.1)):
        found[f"route/rise_oracle@{share}"] = [rise, rise + 0.2, 0.0, 0.0]
        found[f"route/rise_mean_row@{share}"] = [2 * rise, 2 * rise, 0.0, 0.0]
        found[f"route/rise_random_oracle@{share}"] = [1.0] * rows
    found |= {
        "curriculum/passed": [0.0, 2.0, 1.0, 2.0],
        "enrichment/times": [3.0, 5.0, 2.0, 2.0],
        "enrichment/times_random": [1.0] * rows,
    }
    found["interaction/modules_1_2"] = [0.5, 0.1, 0.0, np.nan]
    return pd.DataFrame(found)


def test_values_after_cuts_and_transplants_stand_beside_their_controls_under_any_name() -> None:
    cut, late = analysis_figures(results(), "network", ["cut", "late"])
    assert (cut.name, late.name) == ("analysis_cut", "analysis_late")
    means = cut.data.query("shown == 'mean'").set_index(["network", "arm"])["value"]
    assert means["dense", "modules cut apart"] == 0.5
    assert means["premodular", "random modules cut apart"] == np.mean([0.2, 0.4])
    assert set(late.data["arm"]) == {
        "a trained network's module",
        "an untrained module",
        "a trained module, shuffled",
    }
    assert len(cut.png()) > 5_000


def test_matrices_are_means_over_networks_and_symmetric_for_pairs() -> None:
    clamp, interaction = analysis_figures(results(), "network", ["clamp", "interaction"])
    cells = clamp.data.set_index(["network", "row", "column"])["value"]
    assert [cells["dense", 1, 2], cells["dense", 2, 1]] == [1.5, 1.5]
    assert [cells["premodular", 1, 1], cells["premodular", 1, 2]] == [1.0, 0.0]
    pairs = interaction.data.set_index(["network", "row", "column"])["value"]
    assert pairs["dense", 1, 2] == pairs["dense", 2, 1] == 0.3
    assert pairs["premodular", 2, 1] == 0.0
    assert len(interaction.png()) > 5_000
    for figure in (clamp, interaction):
        assert figure.chart is not None
        for panel in figure.chart.panels:
            own = figure.data.loc[figure.data["network"] == panel.title]
            assert (panel.rows["x"] - 0.5).tolist() == (own["column"] - 1).tolist()
            assert (panel.rows["y"] - 0.5).tolist() == (own["row"] - 1).tolist()
            assert panel.rows["value"].tolist() == own["value"].tolist()
            assert panel.y.ends == (2.0, 0.0)  # the first row is above


def test_what_is_lost_by_routing_is_drawn_by_share_and_router() -> None:
    (route,) = analysis_figures(results(), "network", ["route"])
    means = route.data.query("shown == 'mean'").set_index(
        ["network", "Experts kept by", "Share of experts kept"]
    )
    assert means["value"]["dense", "oracle", 0.25] == 0.4
    assert means["value"]["dense", "mean row", 0.5] == 0.2
    assert set(route.data["Experts kept by"]) == {"oracle", "mean row"}
    assert len(route.png()) > 5_000


def test_a_curriculum_is_drawn_as_the_stages_that_networks_passed() -> None:
    (curriculum,) = analysis_figures(results(), "network", ["curriculum"])
    means = curriculum.data.query("shown == 'mean'").set_index("network")["value"]
    assert means.to_dict() == {"dense": 1.0, "premodular": 1.5}


def test_enrichment_stands_beside_that_of_random_experts() -> None:
    (enrichment,) = analysis_figures(results(), "network", ["enrichment"])
    means = enrichment.data.query("shown == 'mean'").set_index(["network", "arm"])["value"]
    assert (means["dense", "experts found"], means["dense", "random experts"]) == (4.0, 1.0)


def test_analyses_without_such_columns_have_no_figure() -> None:
    assert analysis_figures(results(), "network", ["power"]) == []
