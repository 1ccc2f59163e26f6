from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from modulab.report.categories import strip_figure
from modulab.report.figure import ReportFigure, save_figures
from modulab.report.lines import curves_figure, levels_figure, lines_figure
from modulab.report.panels import panel_grid
from modulab.report.planes import front_figure, map_figure
from modulab.report.points import join_settings
from modulab.report.style import (
    MOST_ARMS,
    arm_styles,
    choose_scale,
    choose_setting_scale,
    drawing,
    label,
    set_setting_axis,
)
from modulab.results.intervals import mean_interval
from tests.report.figure_rules import broken_rules
from tests.report.tables import sweep_results

SCALES = [0.0, 0.05, 0.1, 0.2, 0.4]
GRID = {"noise__scale": SCALES, "architecture__name": ["dense", "premodular"]}


def lines(results: pd.DataFrame, **more: str) -> ReportFigure:
    measures = ["error/test", "modularity/structural"]
    return lines_figure(
        results, "config.noise.scale", measures, name="lines", title="Lines",
        arm="config.architecture.name", **more,
    )  # fmt: skip


def grid_map(results: pd.DataFrame) -> ReportFigure:
    return map_figure(
        results, "config.noise.scale", "config.data.num_samples", ["error/test"], name="map", title="Map"
    )


def test_lines_hold_every_member_and_the_mean_and_interval_of_each_group() -> None:
    results = sweep_results(**GRID)
    data = lines(results).data
    for measure in ("error/test", "modularity/structural"):
        own = data[data["measure"] == measure]
        members = own[own["shown"] == "member"].set_index("run_id")["value"]
        pd.testing.assert_series_equal(
            members.sort_index(),
            results.set_index("run_id")[measure],
            check_names=False,
            check_index_type=False,
        )
        for (scale, arm), group in results.groupby(["config.noise.scale", "config.architecture.name"]):
            place = own[(own["noise.scale"] == scale) & (own["architecture.name"] == arm)]
            shown = place[place["shown"] != "member"].set_index("shown")["value"]
            low, high = mean_interval(group[[measure]].to_numpy())
            assert shown["mean"] == pytest.approx(group[measure].mean(), rel=1e-14)
            assert [shown["low"], shown["high"]] == [low[0], high[0]]


def test_members_that_did_not_complete_are_in_no_figure() -> None:
    results = sweep_results(**GRID)
    results.loc[4, "status"] = "diverged"
    results.loc[4, "error/test"] = 1e9
    assert lines(results).data["value"].max() < 100
    assert "run004" not in set(lines(results).data["run_id"])


def test_interval_that_ends_below_zero_leaves_the_axis_of_an_error_logarithmic() -> None:
    results = sweep_results(noise__scale=SCALES)
    results["error/test"] = np.where(results["config.seed"] == 0, 0.01, 0.9)
    drawn = lines(results)
    data = drawn.data[drawn.data["measure"] == "error/test"]
    assert data["value"].min() < 0
    assert drawn.figure.axes[0].get_yscale() == "log"


def test_marks_stay_apart_under_the_wide_intervals_of_two_seeds() -> None:
    results = sweep_results(seeds=2, noise__scale=SCALES)
    results["activity/mean"] = 0.5 + 0.1 * results["config.noise.scale"] + 0.01 * results["config.seed"]
    results.loc[results["config.noise.scale"] == 0, "activity/mean"] = [
        0.4,
        0.6,
    ]  # an interval of 2.5 about .5
    drawn = lines_figure(results, "config.noise.scale", ["activity/mean"], name="wide", title="Wide")
    assert drawn.data["value"].max() > 1.7
    assert drawn.figure.axes[0].get_ylim() == pytest.approx((0.2, 0.8))
    assert drawn.caption.endswith("end with the axis.")
    narrow = sweep_results(noise__scale=SCALES)
    narrow["activity/mean"] = narrow["config.noise.scale"] + 0.01 * narrow["config.seed"]
    drawn = lines_figure(narrow, "config.noise.scale", ["activity/mean"], name="narrow", title="Narrow")
    assert "end with the axis" not in drawn.caption


def test_levels_stand_at_the_level_in_the_name_of_the_measure() -> None:
    results = sweep_results(**GRID)
    data = levels_figure(results, ["error_under/poisson"], name="levels", title="Levels").data
    members = data[data["shown"] == "member"]
    for level in (0.1, 0.3):
        values = members[members["level"] == level]["value"]
        assert sorted(values) == sorted(results[f"error_under/poisson@{level}"])


def test_curves_are_those_of_completed_members() -> None:
    results = sweep_results(noise__scale=[0.0, 0.1])
    results.loc[0, "status"] = "failed"
    curves = pd.DataFrame(
        [
            (name, step, "training/loss", step + row)
            for row, name in enumerate(results["run_id"])
            for step in (1, 2)
        ],
        columns=["run_id", "step", "measure", "value"],
    )
    shuffled = curves.sample(frac=1, random_state=0)
    drawn = curves_figure(shuffled, results, name="curves", title="Curves", arm="config.noise.scale")
    lines = [each for each in drawn.figure.axes[0].collections if isinstance(each, LineCollection)]
    segments = [np.asarray(segment).tolist() for each in lines for segment in each.get_segments()]
    assert sorted(segments) == [[[1, row + 1], [2, row + 2]] for row in range(1, len(results))]
    data = drawn.data
    members = data[data["shown"] == "member"]
    assert sorted(members["value"]) == sorted(curves[curves["run_id"] != "run000"]["value"])
    mean = data[(data["shown"] == "mean") & (data["noise.scale"] == 0) & (data["step"] == 2)]["value"]
    assert mean.tolist() == [2 + (1 + 2) / 2]


def test_a_front_joins_means_in_the_order_of_the_strength_not_of_the_rows() -> None:
    results = sweep_results(noise__scale=[0.4, 0.0, 0.2])
    figure = front_figure(
        results,
        "error/test",
        "modularity/structural",
        name="front",
        title="Front",
        order="config.noise.scale",
    )
    means = results.groupby("config.noise.scale")["error/test"].mean()
    joined = [line.get_xdata() for line in figure.figure.axes[0].lines if line.get_marker() != "None"][-1]
    assert np.asarray(joined).tolist() == pytest.approx(means.sort_index().tolist())


def test_panels_of_one_value_of_a_setting_stand_in_one_row_on_a_page() -> None:
    results = sweep_results(**GRID, task__modules=[2, 4])
    chart = lines(results, row="config.task.modules").chart
    assert chart is not None
    assert chart.columns == 2
    assert chart.block == 2
    assert [panel.title[-1] for panel in chart.panels] == ["2", "2", "4", "4"]


def test_panels_of_each_level_begin_a_row() -> None:
    figure, panels = panel_grid(14, 4, block=7)
    cells = [panel.get_subplotspec() for panel in panels]
    assert [(cell.rowspan.start, cell.colspan.start) for cell in cells if cell is not None] == [
        *((0, column) for column in range(4)),
        *((1, column) for column in range(3)),
        *((2, column) for column in range(4)),
        *((3, column) for column in range(3)),
    ]
    assert [axes for axes in figure.axes if axes.get_visible()] == panels


def test_panels_of_arms_are_called_by_their_settings_alone() -> None:
    results = sweep_results(**GRID).assign(arm="dense, N = 64")
    titles = {axes.get_title() for axes in lines(results, row="arm").figure.axes}
    assert titles == {"dense, N = 64"}


def test_a_map_prints_the_mean_of_each_cell_in_its_place() -> None:
    results = sweep_results(noise__scale=[0.0, 0.2, 0.4], data__num_samples=[10, 100, 1000])
    axes = grid_map(results).figure.axes[0]
    printed = {
        tuple(int(place) for place in text.get_position()): text.get_text()
        for text in axes.texts
        if " to " not in text.get_text()
    }
    means = results.groupby(["config.data.num_samples", "config.noise.scale"])["error/test"].mean().unstack()
    for row, column in np.ndindex(means.shape):
        assert printed[column, row] == f"{means.iloc[row, column]:#.2g}"


def test_an_arm_has_its_colour_in_every_figure() -> None:
    styles = arm_styles(["dense", "premodular"])
    results = sweep_results(**GRID)
    strip = strip_figure(
        results[results["config.noise.scale"] == 0], "config.architecture.name", ["error/test"], name="s",
        title="s", styles=styles,
    )  # fmt: skip
    front = front_figure(
        results, "error/test", "modularity/structural", name="f", title="f", arm="config.architecture.name"
    )
    for figure in (lines(results), strip, front):
        drawn = {line.get_color() for line in figure.figure.axes[0].lines}
        assert {style.colour for style in styles.values()} <= drawn, figure.name


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 16])
@pytest.mark.parametrize("arm", [None, "config.noise.scale"])
def test_no_network_of_a_strip_is_below_the_bar_of_an_interval(arm: str | None, seeds: int) -> None:
    results = sweep_results(seeds=seeds, architecture__name=["dense", "premodular"], noise__scale=[0, 0.1])
    results = results if arm else results[results["config.noise.scale"] == 0]
    strip = strip_figure(
        results, "config.architecture.name", ["error/test"], name="strip", title="Strip", arm=arm
    ).figure
    strip.canvas.draw()
    axes = strip.axes[0]
    marks = [line for line in axes.lines if line.get_markersize() == 3]
    bars = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert len(bars) == len(marks) == (4 if arm else 2)
    for drawn, bar in zip(marks, bars, strict=True):
        heights = axes.transData.transform(drawn.get_xydata())[:, 1]
        middle = axes.transData.transform(bar.get_xydata())[0, 1]
        assert len(heights) == seeds
        assert min(abs(heights - middle)) > bar.get_linewidth() / 2 * strip.dpi / 72


def test_colours_differ_in_lightness_or_hue_for_as_many_arms_as_can_be_drawn() -> None:
    styles = arm_styles([f"arm {number}" for number in range(21)])
    assert len({(style.colour, str(style.dashes)) for style in styles.values()}) == 21


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save_figures([lines(sweep_results(**GRID))], tmp_path / folder)
    for name in ("lines.svg", "lines.png", "lines.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "lines.csv",
        "lines.png",
        "lines.svg",
    ]


def test_what_is_saved_beside_a_figure_is_its_data(tmp_path: Path) -> None:
    figure = lines(sweep_results(**GRID))
    save_figures([figure], tmp_path)
    read = pd.read_csv(tmp_path / "lines.csv")
    assert read["value"].tolist() == figure.data["value"].tolist()
    assert read.columns.tolist() == figure.data.columns.tolist()


def tick_boxes(axes: Axes) -> list[list[Bbox]]:
    return [
        [text.get_window_extent() for text in axis.get_ticklabels() if text.get_text() and text.get_visible()]
        for axis in (axes.xaxis, axes.yaxis)
    ]


def inside(axes: Axes, box: Bbox) -> bool:
    place = axes.get_window_extent()
    middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    return place.x0 - 1 <= middle[0] <= place.x1 + 1 or place.y0 - 1 <= middle[1] <= place.y1 + 1


@pytest.mark.parametrize(
    "figure",
    [
        lines(sweep_results(noise__scale=[0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8], architecture__name=["dense"])),
        lines(sweep_results(noise__scale=[0.1, 0.11, 0.12, 0.5], architecture__name=["dense", "premodular"])),
        grid_map(sweep_results(noise__scale=SCALES, data__num_samples=[10, 100, 1000, 100000])),
        strip_figure(
            sweep_results(architecture__name=["a long name of a network", "dense", "premodular", "partial"]),
            "config.architecture.name", ["error/test", "modularity/structural"], name="strip", title="Strip",
        ),
    ],
)  # fmt: skip
def test_labels_of_ticks_and_axes_do_not_overlap(figure: ReportFigure) -> None:
    with drawing():
        FigureCanvasAgg(figure.figure).draw()
        legends = [legend.get_window_extent() for legend in figure.figure.legends]
        for axes in figure.figure.axes:
            for boxes in tick_boxes(axes):
                shown = [box for box in boxes if inside(axes, box)]
                for one, other in combinations(shown, 2):
                    assert not one.overlaps(other), figure.name
            for legend in legends:
                assert not axes.get_tightbbox().overlaps(legend)
        for one, other in combinations(figure.figure.axes, 2):
            assert (
                not one.get_tightbbox().shrunk(0.99, 0.99).overlaps(other.get_tightbbox().shrunk(0.99, 0.99))
            )


def test_scales_follow_values() -> None:
    assert choose_scale([0.001, 0.01, 0.1]) == "log"
    assert choose_scale([0.2, 0.5, 0.9]) == "linear"
    assert choose_scale([-1, 5, 1000]) == "linear"
    assert choose_setting_scale([0, 0.05, 0.1, 0.2, 0.4]) == "symlog"
    assert choose_setting_scale([16, 64, 256]) == "log"
    assert choose_setting_scale([0.1, 0.2, 0.3, 0.4]) == "linear"
    assert choose_setting_scale([0, 0.4]) == "linear"


def test_labels_name_quantities_and_leave_unknown_names_alone() -> None:
    assert label("modularity/structural") == "Structural modularity"
    assert label("config.noise.scale") == "Noise scale σ in training"
    assert label("error_under/poisson@0.3") == "Error under Poisson noise 0.3"
    assert label("weights/norm") == "weights/norm"


def test_names_with_dollar_signs_are_drawn_as_they_are() -> None:
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.plot([1, 2], [1, 2], label=r"$\frac$")
    axes.set_xticks([1, 2], [r"$\frac$", "a$b$"])
    axes.set_title(r"$\frac$")
    axes.legend()
    drawn = ReportFigure("dollars", "", "", figure, pd.DataFrame())
    assert drawn.png().startswith(b"\x89PNG")
    assert b"<svg" in drawn.svg()


def test_texts_that_are_too_long_are_broken_and_ticks_that_touch_are_left_out() -> None:
    with drawing():
        figure = Figure(figsize=(3, 2), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "o")
        axes.set_ylabel(
            "Error on withheld combinations of inputs / error on those that were seen \N{DOWNWARDS ARROW}"
        )
        axes.set_xticks(np.linspace(0, 1, 21), [f"{place:.4f}" for place in np.linspace(0, 1, 21)])
    broken = broken_rules(figure)
    assert any("is cut off" in each for each in broken)
    assert any("overlap" in each for each in broken)
    ReportFigure("long", "Long", "", figure, pd.DataFrame()).svg()
    assert broken_rules(figure) == []
    assert axes.get_ylabel().replace("\n", " ").startswith("Error on withheld combinations of inputs / error")
    assert axes.get_ylabel().endswith("seen \N{DOWNWARDS ARROW}")


def test_marks_at_both_ends_of_a_bounded_measure_are_whole() -> None:
    results = sweep_results(**GRID)
    results["modularity/structural"] = np.where(results["config.seed"] == 0, 0.0, 1.0)
    drawn = lines(results)
    drawn.svg()
    assert broken_rules(drawn.figure) == []
    drawn.figure.axes[1].set_ylim(0, 1)
    assert any("marks" in each for each in broken_rules(drawn.figure))
    drawn.figure.axes[1].set_ylim(-0.1, 1.1)


def test_as_many_arms_as_a_figure_holds_differ_in_colour_or_marker() -> None:
    styles = arm_styles([f"arm {place}" for place in range(MOST_ARMS)])
    assert len({(style.colour, style.marker) for style in styles.values()}) == MOST_ARMS


def test_joined_settings_are_called_by_their_symbols() -> None:
    results = sweep_results(noise__scale=[0.1], architecture__name=["dense"], data__num_samples=[64])
    results["config.my.key"] = 3
    columns = ["config.architecture.name", "config.noise.scale", "config.data.num_samples", "config.my.key"]
    assert set(join_settings(results, columns)) == {"dense, σ = 0.1, N = 64, my.key = 3"}


def test_a_map_over_decades_has_no_formula_and_no_interval_beyond_its_cell() -> None:
    results = sweep_results(noise__scale=[0.0, 0.2, 0.4], data__num_samples=[10, 100, 1000])
    results["error/test"] *= np.where(results["config.noise.scale"] == 0, -1e-3, 1).clip(1e-3)
    figure = grid_map(results)
    figure.svg()
    assert broken_rules(figure.figure) == []
    width = figure.figure.axes[0].get_window_extent().width / 3
    assert all(text.get_window_extent().width < width for text in figure.figure.axes[0].texts)


def test_a_measure_that_has_values_only_where_a_setting_is_zero_has_an_axis() -> None:
    axes = Figure().subplots()
    set_setting_axis(axes, [0.0, 0.0], "symlog", 4.0)
    assert axes.get_xscale() == "linear"
    assert list(axes.get_xticks()) == [0.0]


def test_panels_of_levels_share_the_axis_of_a_setting_even_where_one_has_a_single_value() -> None:
    results = sweep_results(noise__scale=[0.0, 0.05, 0.1, 0.2, 0.4], task__support=["full", "band"])
    only_off = results["config.task.support"].eq("full") | results["config.noise.scale"].eq(0)
    figure = lines(results[only_off], row="config.task.support")
    figure.svg()
    full, _, band, _ = figure.figure.axes
    assert full.get_xscale() == band.get_xscale() == "symlog"
    assert band.get_xlim() == full.get_xlim()
    assert figure.chart is not None
    panels = figure.chart.panels
    assert {panel.x.ends for panel in panels} == {tuple(map(float, full.get_xlim()))}
    assert all(list(panel.x.ticks) == [0.0, 0.05, 0.1, 0.2, 0.4] for panel in panels)
