"""Maps from results with a planted effect: what settings give, where they lie, and what figure and words say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from modulab.claims.maps.analysis import draw_map
from modulab.claims.maps.boundary import prediction_shares
from modulab.claims.maps.command import map_overrides, read_axes
from modulab.claims.maps.definitions import MAPS, PRESETS, ClaimMap, choose_maps
from modulab.claims.maps.effects import Effect
from modulab.claims.maps.figure import map_figure, name_region
from modulab.claims.maps.front import front_figure, front_words, not_dominated
from modulab.claims.maps.places import RESOLUTION, Plan, place_of, value_at
from modulab.claims.maps.predictions import (
    DIGITS,
    FORGETTING,
    GENERALISATION,
    NOISE,
    NONLINEARITY,
    ROBUSTNESS,
    SAMPLES,
    Prediction,
)
from modulab.claims.maps.settling import MEASURE, settling, settling_figure
from modulab.claims.maps.words import as_record, boundary_words, facts, opening, panel_rows
from modulab.config.composing import config_folder
from modulab.config.sobol import Axis, Sobol
from modulab.errors import ConfigError
from modulab.report.style import drawing

AXES = {
    "data.num_samples": Axis(low=10.0, high=1000.0, scale="log", integer=True),
    "noise.scale": Axis(low=0.0, high=1.0),
    "task.modules": Axis(values=[2, 4]),
    "architecture.width": Axis(values=[24], times={"task.modules": 1}),
}
PREDICTION = Prediction(
    "N below 50 d", "planted", lambda at: np.log(50 * at["task.modules"] / at["data.num_samples"])
)
MAP = ClaimMap(
    "C0",
    "A planted claim",
    "none",
    Effect(
        "error of dense over premodular networks", "error", 2.0, "architecture.name", "dense", "factor", True
    ),
    PREDICTION,
    "none",
)


def results(settings: int = 96, seed: int = 0) -> pd.DataFrame:
    """Return results in which dense networks err twice as much as premodular ones at N = 50 d, and more below."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number, setting in enumerate(Sobol(settings=settings, axes=AXES).draw()):
        factor = 2 * (50 * setting["task.modules"] / setting["data.num_samples"]) ** 0.7
        error = math.exp(random.normal())
        for name, value in (
            ("dense", factor * error * math.exp(0.1 * random.normal())),
            ("premodular", error),
        ):
            rows.append(
                {"run_id": f"{number}{name}", "status": "completed", "config.seed": number, "error": value}
                | {"config.architecture.name": name, "config.training.steps": 7}
                | {f"config.{key}": level for key, level in setting.items()}
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def drawn() -> Any:
    return draw_map(MAP, AXES, results())


def test_an_effect_pairs_the_members_of_a_seed_and_leaves_out_what_is_lost() -> None:
    table = results(8)
    table.loc[[0, 3], "status"] = "diverged", "failed"
    table.loc[4, "error"] = math.nan
    found = MAP.effect.of_settings(table, ["noise.scale"])
    assert len(found) == 5
    dense, modular = table.iloc[10::2], table.iloc[11::2]
    expected = np.log(dense["error"].to_numpy() / modular["error"].to_numpy())
    np.testing.assert_allclose(found["effect"].to_numpy()[2:], expected)


def test_an_arm_that_an_axis_names_has_the_setting_of_the_other_arm() -> None:
    effect = Effect("gain", "S", 0.1, arm="noise.scale", base=0.0)
    table = pd.DataFrame(
        {
            "status": "completed",
            "config.seed": [3, 3, 4],
            "config.noise.scale": [0.5, 0.0, 0.2],
            "S": [0.9, 0.4, 0.7],
        }
    )
    found = effect.of_settings(table, ["noise.scale"])
    assert found.to_dict("list") == {"noise.scale": [0.5], "effect": [pytest.approx(0.5)]}


def test_an_effect_that_varies_over_decades_is_a_logarithm_of_one_member() -> None:
    effect = Effect("rise", "rise", 0.02, scale="size")
    table = pd.DataFrame({"status": "completed", "config.seed": [0, 1], "rise": [0.2, -1.0]})
    found = effect.of_settings(table, [])["effect"].to_numpy()
    np.testing.assert_allclose(np.exp(found), [0.2, 0.0002])
    assert effect.shown(effect.threshold) == pytest.approx(0.02)


@pytest.mark.parametrize(
    "axis", [AXES["data.num_samples"], AXES["noise.scale"], Axis(values=[2, 3, 4, 6, 8])]
)
def test_places_and_values_of_an_axis_are_each_others_inverse(axis: Axis) -> None:
    places = np.linspace(0, 1, 9)
    values = value_at(axis, places)
    # Between the numbers of a list places are proportional to logarithms, and their inverse is only near.
    np.testing.assert_allclose(place_of(axis, values), places, atol=1e-12 if axis.values is None else 0.03)
    assert (np.diff(values) > 0).all()


def test_a_plan_takes_the_first_two_axes_as_its_plane_and_lists_as_panels() -> None:
    plan = Plan.of(AXES | {"training.learning_rate": Axis(low=1e-3, high=1e-2, scale="log")})
    assert (plan.x, plan.y, plan.panel_keys) == ("data.num_samples", "noise.scale", ["task.modules"])
    assert plan.averaged == ["training.learning_rate"]
    assert [panel.levels for panel in plan.panels] == [{"task.modules": 2}, {"task.modules": 4}]
    first = plan.shown[0]
    assert len(first["noise.scale"]) == 2 * RESOLUTION**2
    np.testing.assert_array_equal(first["architecture.width"], 24 * first["task.modules"])
    assert len({float(each["training.learning_rate"][0]) for each in plan.shown}) == len(plan.shown) > 1


@pytest.mark.parametrize(
    ("axes", "complaint"),
    [
        ({"noise.scale": Axis(low=0.0, high=1.0)}, "needs at least two axes"),
        ({"a": Axis(values=["x", "y"]), "b": Axis(low=0.0, high=1.0)}, "rising numbers"),
        (
            {"a": Axis(low=0.0, high=1.0), "b": Axis(low=0.0, high=1.0), "c": Axis(values=list(range(13)))},
            "13 panels",
        ),
    ],
)
def test_axes_that_make_no_map_are_refused(axes: dict[str, Axis], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Plan.of(axes)


def test_a_planted_map_has_its_boundary_where_it_was_planted(drawn: Any) -> None:
    for panel in drawn.plan.panels:
        [found] = drawn.crossings("data.num_samples", panel)
        low, value, high = value_at(AXES["data.num_samples"], np.array([found.low, found.place, found.high]))
        assert low < 50 * panel.levels["task.modules"] < high
        assert high / low < 2
        assert not found.rises
        [predicted] = drawn.predicted_crossings("data.num_samples", panel)
        assert value_at(AXES["data.num_samples"], np.array([predicted]))[0] == pytest.approx(
            50 * panel.levels["task.modules"], rel=0.01
        )
        assert value == pytest.approx(50 * panel.levels["task.modules"], rel=0.25)
    decided, right = prediction_shares(drawn.regions, drawn.margins)
    assert decided > 0.7
    assert right > 0.99


def test_words_name_the_axis_the_boundary_and_every_region(drawn: Any) -> None:
    sentence = opening(drawn)
    for words in (
        "supported in",
        "not supported in",
        "undecided in",
        "below",
        "training points N",
        "predicted",
    ):
        assert words in sentence
    assert boundary_words(drawn, drawn.plan.panels[0]).startswith("below ")
    assert len(panel_rows(drawn)) == 2
    record = as_record(drawn)
    assert sum(record["shares"].values()) == pytest.approx(1)
    assert {"data.num_samples"} <= {each["axis"] for each in record["boundaries"]}


def test_a_figure_names_each_region_and_keeps_every_place_and_setting(drawn: Any) -> None:
    figure = map_figure(drawn)
    texts = [text.get_text() for axes in figure.figure.axes for text in axes.texts]
    assert {"supported", "not supported"} <= set(texts)
    [legend] = figure.figure.legends
    assert {"supported", "not supported", "undecided"} <= {text.get_text() for text in legend.get_texts()}
    assert (figure.data["shown"] == "place").sum() == len(drawn.regions)
    assert (figure.data["shown"] == "setting").sum() == 96
    # Every place is in one of the regions, none left blank.
    assert set(figure.data.loc[figure.data["shown"] == "place", "region"]) == {
        "supported", "not supported", "undecided",
    }  # fmt: skip
    assert len(figure.png()) > 1000


def test_a_map_on_a_page_has_every_place_and_setting_with_its_effect_and_boundaries_where_they_are(
    drawn: Any,
) -> None:
    figure = map_figure(drawn)
    assert figure.chart is not None
    data = figure.data
    for panel, modules in zip(figure.chart.panels, (2, 4), strict=True):
        rows, own = panel.rows, data.loc[data["task.modules"] == modules]
        for shown, kind in (("mean", "place"), ("member", "setting")):
            wanted = own.loc[own["shown"] == kind]
            charted = rows.loc[rows["shown"] == shown]
            np.testing.assert_allclose(charted["value"], wanted["effect"])
            np.testing.assert_allclose(
                charted["x"], place_of(AXES["data.num_samples"], wanted["data.num_samples"].to_numpy())
            )
        guides = rows.loc[rows["shown"] == "guide"]
        assert set(guides["arm"]) == {"measured boundary", "predicted boundary"}
        planted = place_of(AXES["data.num_samples"], np.array([50.0 * modules]))
        predicted = guides.loc[guides["arm"] == "predicted boundary", "x"]
        np.testing.assert_allclose(predicted, planted.item(), atol=0.01)
        np.testing.assert_allclose(guides["x"], planted.item(), atol=0.1)
        place = rows.loc[rows["shown"] == "mean"].iloc[0]
        assert place["words"].splitlines()[0] == "Training points N: 10"
        assert place["words"].splitlines()[-1] == "predicted: supported"


def test_too_few_settings_leave_a_map_undecided() -> None:
    found = draw_map(MAP, AXES, results(4))
    assert found.surface is None
    assert not found.regions.any()
    assert "undecided" in opening(found)
    assert len(map_figure(found).svg()) > 1000


def test_a_map_of_a_preset_that_decides_nothing_has_no_region_and_no_boundary(drawn: Any) -> None:
    left_open = replace(drawn, surface=None, left_open="not decided (smoke)")
    assert opening(left_open) == "C0. A planted claim: not decided (smoke)."
    record = as_record(left_open)
    assert record["shares"] == {"supported": 0.0, "undecided": 1.0, "not supported": 0.0}
    assert record["boundaries"] == []
    for panel, row in zip(left_open.plan.panels, panel_rows(left_open), strict=True):
        assert boundary_words(left_open, panel) == row[4] == "not decided (smoke)"
    texts = [text.get_text() for axes in map_figure(left_open).figure.axes for text in axes.texts]
    assert set(texts) == {"undecided"}


def test_a_front_is_what_no_other_place_dominates() -> None:
    random = np.random.default_rng(0)
    prices, effects = random.random((2, 40)).round(1)
    found = not_dominated(prices, effects)
    kept = {
        (price, effect)
        for price, effect in zip(prices, effects, strict=True)
        if not any(
            other <= price and more >= effect and (other, more) != (price, effect)
            for other, more in zip(prices, effects, strict=True)
        )
    }
    assert {(prices[place], effects[place]) for place in found} == kept
    assert len(found) == len(kept)


def test_a_planted_front_has_its_effects_at_their_prices_and_bands_that_hold_them() -> None:
    # The factor grows as N falls, and the modular networks' error as its inverse: the price tells the factor.
    table = results()
    points = table["config.data.num_samples"] / table["config.task.modules"]
    table["paid"] = np.where(table["config.architecture.name"] == "dense", 9.0, (100 / points) ** 0.7)
    found = draw_map(replace(MAP, effect=replace(MAP.effect, price="paid")), AXES, table)
    assert found.front is not None
    for panel in (0, 1):
        for budget in (0.7, 1.0, 2.0):
            reached = found.front.at(panel, budget)
            assert reached is not None
            effect, low, high = reached
            assert low < effect < high
            # 2 (50 d / N)^.7 is 2 price / 2^.7
            assert effect == pytest.approx(2 * budget / 2**0.7, rel=0.15)
        assert found.front.at(panel, 1e-4) is None
    names = ["two", "four"]
    assert (
        "no place has so low an error at 0.0001 (few)"
        in front_words(replace(MAP.effect, price="paid"), found.front, names, {"few": 1e-4})[1]
    )
    figure = front_figure(replace(MAP.effect, price="paid"), found.front, names, "map_C0")
    assert (figure.data["shown"] == "setting").sum() == 96
    assert set(figure.data["panel"]) == {"two", "four"}
    assert figure.chart is not None
    [panel] = figure.chart.panels
    members = panel.rows.loc[panel.rows["shown"] == "member"]
    np.testing.assert_allclose(sorted(members["y"]), sorted(found.front.settings["effect"]))
    assert set(panel.rows.loc[panel.rows["shown"] == "guide", "y"]) == {MAP.effect.least}
    assert len(figure.svg()) > 1000


def at(**values: Any) -> dict[str, Any]:
    return {key.replace("__", "."): np.atleast_1d(value) for key, value in values.items()}


def test_predicted_lines_pass_through_the_numbers_that_they_rest_on() -> None:
    deep = at(noise__scale=[0.19, 0.057, 0.87, 1.0], training__steps=[1200, 4000, 4000, 4000])
    margins = NOISE.margin(deep | at(architecture__depth=[1, 1, 2, 3]))
    np.testing.assert_allclose(margins[:3], 0, atol=1e-9)
    assert math.isnan(margins[3])
    counts = at(task__modules=[2, 3, 4, 5, 6], data__num_samples=[20, 46, 96, 171, 253])
    assert np.abs(SAMPLES.margin(counts)).max() < math.log(1.2)
    units = at(architecture__width=[48, 96, 192], task__modules=2, architecture__initial_scale=1.0)
    rises = 0.0214 * np.exp(FORGETTING.margin(units | at(architecture__depth=1)))
    np.testing.assert_allclose(rises, [0.042, 0.021, 0.0105], rtol=1e-3)


def test_robustness_is_predicted_by_parameters_points_or_laziness() -> None:
    points = at(
        data__num_samples=[100, 300, 300, 300], task__modules=4, architecture__initial_scale=[1, 1, 3, 3]
    )
    assert (ROBUSTNESS.margin(points) > 0).tolist() == [True, False, True, True]
    linear = points | at(task__degree=[2, 2, 2, 1])
    assert (ROBUSTNESS.margin(linear) > 0).tolist() == [True, False, True, False]
    cycled = linear | at(task__functions=['["sine", "parabola"]'] * 4)
    assert (ROBUSTNESS.margin(cycled) > 0).tolist() == [
        True,
        False,
        True,
        True,
    ]  # the default degree of 1 is unused
    matched = points | at(architecture__match=["width", "parameters", "width", "width"])
    assert (ROBUSTNESS.margin(matched) > 0).tolist() == [True, True, True, True]


def test_the_map_over_degrees_is_predicted_by_its_own_axes() -> None:
    [of] = [each for each in MAPS if each.experiment == "robustness_degree"]
    plan = Plan.of(read_axes(map_overrides(of, "quick")))
    margins = of.prediction.margin({**plan.shown[0], "task.modules": np.full(len(plan.shown[0][plan.x]), 4)})
    shares = {
        tuple(panel.levels.values()): float((margins[panel.places] > 0).mean()) for panel in plan.panels
    }
    # Of the range of points on a logarithmic axis, that below 256 is 3 of 7; of that of scales, .239 is above 1.73.
    assert shares.pop(("width", 1)) == pytest.approx(3 / 7, abs=0.03)
    for (match, _), share in shares.items():
        expected = 1.0 if match == "parameters" else 3 / 7 + 4 / 7 * 0.239
        assert share == pytest.approx(expected, abs=0.03)


def test_nonlinearity_is_predicted_by_the_measured_doses_and_never_in_linear_networks() -> None:
    doses = at(task__nonlinearity=[0.0, 0.25, 0.5, 0.25, 1.0], noise__scale=[0.4, 0.4, 0.2, 0.3, 0.8])
    relu = NONLINEARITY.margin(doses | at(architecture__activation=["relu"] * 5))
    np.testing.assert_allclose(relu + 0.1, [0.01, 0.18, 0.20, 0.15, 0.40])
    linear = NONLINEARITY.margin(doses | at(architecture__activation=["linear"] * 5))
    assert (linear < 0).all()


def test_digits_are_predicted_by_the_gains_that_were_measured_whatever_the_steps() -> None:
    costs = at(
        noise__scale=1.5, regulariser__strength=[0.0001, 0.0003, 0.001], training__steps=[1000, 4000, 1000]
    )
    gains = 0.1 * np.exp(DIGITS.margin(costs))
    assert np.abs(np.log(gains / np.array([0.051, 0.090, 0.176]))).max() < math.log(1.1)
    scales = at(noise__scale=[0.5, 1.5], regulariser__strength=0.0001)
    low, high = np.exp(DIGITS.margin(scales))
    assert high / low == pytest.approx(0.109 / 0.020, rel=0.1)


def test_generalisation_is_predicted_to_gain_what_was_measured_and_only_between_two_noises() -> None:
    seen = np.exp(GENERALISATION.margin(at(noise__scale=[0.0, 0.2], training__steps=4000)))
    np.testing.assert_allclose(2 * seen, [1.0, 0.153 / 0.082], rtol=2e-3)
    scales = np.linspace(0.01, 2, 400)
    holds = GENERALISATION.margin(at(noise__scale=scales, training__steps=4000)) > 0
    assert scales[holds].min() == pytest.approx(0.25, abs=0.01)
    assert scales[holds].max() == pytest.approx(0.73, abs=0.01)
    assert not (GENERALISATION.margin(at(noise__scale=scales, training__steps=2000)) > 0).any()


def test_every_map_has_its_config_with_axes_that_make_a_map() -> None:
    files = {file.stem for file in (config_folder() / "experiment" / "claims" / "maps").glob("*.yaml")}
    assert files == {each.experiment for each in MAPS}
    assert len({each.name for each in MAPS}) == len(MAPS)
    for each in MAPS:
        for preset in PRESETS:
            assert len(Plan.of(read_axes(map_overrides(each, preset))).axes) >= 2


def test_maps_are_chosen_as_claims_are() -> None:
    assert [each.claim for each in choose_maps(["C6"])] == ["C6a", "C6a", "C6b"]
    assert [each.name for each in choose_maps(["C6a"])] == ["map_C6a", "map_C6a_degree"]
    with pytest.raises(ConfigError, match="there is no map of such a claim"):
        choose_maps(["C2"])


def rising(speeds: dict[str, float], schedule: str = "constant") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return results and curves in which modularity rises by so much between steps 300 and 400, by architecture."""
    table = results(16).assign(**{"config.training.schedule": schedule, "config.training.warmup_steps": 0})
    table["config.training.steps"] = 400
    rows = [
        {"run_id": name, "step": step, "measure": MEASURE, "value": 0.5 + speeds[arm] * (step - 300) / 100}
        for name, arm in zip(table["run_id"], table["config.architecture.name"], strict=True)
        for step in (100, 300, 400)
    ]
    lost = {"run_id": "0dense", "step": 400, "measure": "training/loss", "value": math.nan}
    return table, pd.DataFrame([*rows, lost])


def test_settling_is_the_mean_rise_of_each_arm_over_the_last_quarter_of_training() -> None:
    found = settling(*rising({"dense": 0.05, "premodular": 0.001}), MAP.effect)
    assert found is not None
    assert (found.first, found.last) == (300, 400)
    assert found.by_arm == pytest.approx({"Architecture: dense": 0.05, "Architecture: premodular": 0.001})
    assert "in 50% of networks: it is still rising" in found.words
    ends = found.curves.loc[(found.curves["arm"] == "Architecture: dense"), ["step", "mean"]]
    np.testing.assert_allclose(ends.to_numpy(dtype=float), [[100, 0.4], [300, 0.5], [400, 0.55]])
    settled = settling(*rising({"dense": 0.01, "premodular": -0.3}), MAP.effect)
    assert settled is not None
    assert "it has settled" in settled.words


def test_a_rise_that_ends_with_the_learning_rate_is_not_called_settled() -> None:
    found = settling(*rising({"dense": 0.005, "premodular": 0.0}, "cosine"), MAP.effect)
    assert found is not None
    # The mean of (1 + cos(pi u)) / 2 is 1/2 over all u, and 1/2 - sqrt(2) / pi over the last quarter.
    assert found.learning_rate == pytest.approx(1 - 2 * math.sqrt(2) / math.pi, abs=0.01)
    assert "it slowed only as the learning rate fell" in found.words
    assert f"{0.005 / found.learning_rate:+.3f}" in found.words
    settled = settling(*rising({"dense": 0.001, "premodular": 0.0}, "cosine"), MAP.effect)
    assert settled is not None
    assert "it has settled" in settled.words


def test_settling_is_unknown_without_a_step_before_the_last_quarter() -> None:
    table, curves = rising({"dense": 0.0, "premodular": 0.0})
    assert settling(table, curves.loc[curves["step"] == 400], MAP.effect) is None
    assert settling(table.assign(status="diverged"), curves, MAP.effect) is None


def test_a_page_says_of_a_map_whether_modularity_has_settled(drawn: Any) -> None:
    found = settling(*rising({"dense": 0.05, "premodular": 0.001}), MAP.effect)
    assert found is not None
    told = replace(drawn, settling=found)
    assert found.words in facts(told)
    assert as_record(told)["settling"] == {
        "from": 300, "to": 400, "rise": found.by_arm, "learning_rate": pytest.approx(1),
    }  # fmt: skip
    assert found.words not in facts(replace(told, left_open="not decided"))
    figure = settling_figure(found, "map_C0")
    assert figure.name == "map_C0_steps"
    assert len(figure.data) == 6
    assert figure.chart is not None
    [panel] = figure.chart.panels
    means = panel.rows.loc[panel.rows["shown"] == "mean"]
    np.testing.assert_allclose(means["y"], found.curves["mean"])
    assert means["words"].tolist()[0] == "Training step: 100\n16 networks"
    assert len(figure.svg()) > 1000


def test_names_of_regions_lie_in_them_and_narrow_regions_have_none() -> None:
    ticks = np.linspace(0, 1, RESOLUTION)
    with drawing():
        figure = Figure(figsize=(3.4, 3.0))
        axes = figure.add_axes((0.15, 0.15, 0.8, 0.8))
        axes.set(xlim=(0, 1), ylim=(0, 1))
        across = np.broadcast_to(ticks, (RESOLUTION, RESOLUTION))
        for low, high, named in ((0.0, 0.1, False), (0.1, 0.3, False), (0.3, 1.0, True)):
            name_region(axes, ticks, (across >= low) & (across < high), "not supported")
            assert len(axes.texts) == named
        [text] = axes.texts
        box = text.get_window_extent().transformed(axes.transData.inverted())
    assert 0.3 < box.x0 < box.x1 < 1
    assert 0 < box.y0 < box.y1 < 1
