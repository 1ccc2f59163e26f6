"""`modulab table`: what fits a terminal, sorting, several folders, paired comparisons, and output for programs."""

from __future__ import annotations

import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from modulab.errors import ConfigError
from modulab.results import showing
from modulab.results.layout import fitted, markdown, plain_text, transposed
from modulab.results.pairing import compare
from modulab.results.parquet import RESULTS, write_table
from modulab.results.rounding import without_rounding
from modulab.results.showing import show_results
from modulab.results.store import load_results
from modulab.results.summary import cells, summarise, to_frame
from modulab.results.table_command import ordered
from modulab.results.tables import result_table
from tests.command_line import Command

ARCHITECTURES, SCALES, SEEDS = ("dense", "premodular"), (0.0, 0.1, 0.4), 5
MEASURES = (
    "error/test",
    "error_under/poisson@0.3",
    "modularity/structural",
    "modularity/structural_frame_null",
    "modularity/functional",
    "activity/mean",
)


def value(measure: str, architecture: str, scale: float, seed: int) -> float:
    """Return a measure that the seed moves much and the setting little, so that only pairs show the setting."""
    draw = np.random.default_rng([seed, len(measure)])
    common = math.exp(draw.normal())
    own = np.random.default_rng([seed, len(measure), len(architecture), round(100 * scale)]).normal()
    return common + 0.5 * scale + (architecture == "premodular") * 0.2 + 0.002 * own


def save(folder: Path, shift: float = 0.0, seeds: int = SEEDS) -> Path:
    rows = [(name, scale, seed) for name in ARCHITECTURES for scale in SCALES for seed in range(seeds)]
    configs = [
        {
            "seed": seed,
            "architecture": {"name": name},
            "noise": {"name": "poisson" if scale else "none", "scale": scale},
        }
        for name, scale, seed in rows
    ]
    measures = {each: [value(each, *row) + shift for row in rows] for each in MEASURES}
    done = ["completed"] * len(rows)
    folder.mkdir(exist_ok=True)
    run_ids = [f"{place:x}" for place in range(len(rows))]
    write_table(
        folder / RESULTS,
        result_table(configs, run_ids, done, [None] * len(rows), [1.0] * len(rows), measures),
    )
    return folder


@pytest.fixture
def results(tmp_path: Path) -> pd.DataFrame:
    return load_results(save(tmp_path / "a"))


def shown_at(
    width: int, results: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """Return the lines that a terminal of this width shows, none of which is longer."""
    monkeypatch.setattr(showing, "terminal_width", lambda: width)
    show_results(results, None, list(MEASURES))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    return lines


def left_out_of(lines: list[str]) -> list[str]:
    """Return the measures that are said to have no room."""
    _, _, after = " ".join(lines).partition("No room for ")
    return [name.split()[0] for name in after.partition(". --metric")[0].split(", ")] if after else []


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_table_fits_a_terminal_without_a_broken_number(
    width: int, results: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show_results(results, None, list(MEASURES))
    whole = capsys.readouterr().out.splitlines()
    lines = shown_at(width, results, monkeypatch, capsys)
    assert lines[0] == f"In every row: n = {SEEDS}."
    groups = len(ARCHITECTURES) * len(SCALES)
    numbers = [line.split("  ") for line in whole[1 : 1 + groups]]
    shown = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[3 : 3 + groups]]
    is_narrow = "± is half the width of the 95% interval." in lines
    for row, full in zip(shown, numbers, strict=True):
        whole_cells = {cell.strip() for cell in full}
        if not is_narrow:
            assert set(row) <= whole_cells
        for cell, original in zip(row[3:], [each.strip() for each in full if "[" in each], strict=False):
            low, high = map(float, original.partition("[")[2].rstrip("]").split(","))
            assert cell.split()[0] == original.split()[0]
            if is_narrow:
                assert float(cell.split("±")[1]) == pytest.approx((high - low) / 2, rel=0.06)
    left_out = left_out_of(lines)
    assert left_out == list(MEASURES[len(MEASURES) - len(left_out) :])
    # Settings that have columns are architecture.name, noise.name and noise.scale.
    assert len(left_out) + len(shown[0]) - 3 == len(MEASURES)
    assert len(shown[0]) - 3 >= 3


def with_settings(results: pd.DataFrame, several: int) -> pd.DataFrame:
    """Return the results of a grid over two tasks and strengths, with other settings that all share."""
    parts = [
        results.assign(**{
            "run_id": results["run_id"] + f"-{task}-{strength}", "config.task.support": task,
            "config.regulariser.strength": strength,
        })
        for task in ("full", "band") for strength in (0.0, 0.00125)
    ]  # fmt: skip
    shared = {f"config.training.setting_{number}": "the same" for number in range(several)}
    return pd.concat(parts, ignore_index=True).assign(**shared)


@pytest.mark.parametrize(("width", "told"), [(80, 1), (100, 0), (140, 0)])
def test_settings_become_sections_until_three_measures_have_room(
    width: int,
    told: int,
    results: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    several = with_settings(results, 0)
    lines = shown_at(width, several, monkeypatch, capsys)
    assert len(left_out_of(lines)) <= len(MEASURES) - 3
    sections = [line for line in lines if line.endswith(":") and " = " in line]
    assert sections == [f"architecture.name = {name}:" for name in ARCHITECTURES][: 2 * told]
    # No row is lost, and each stands below its own section.
    summary = summarise(several, None, list(MEASURES))
    means = [f"{mean:.3g}" for mean in summary.mean["error/test"]]
    rows = [line for line in lines if "±" in line or "[" in line]
    assert [mean for mean, row in zip(means, rows, strict=False) if f" {mean} " in row] == means


def test_what_every_row_shares_is_said_in_as_few_lines_as_fit(
    results: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(showing, "terminal_width", lambda: 80)
    shared = [f"training.setting_{number}" for number in range(9)]
    results = results.assign(**{f"config.{name}": "two words" for name in shared})
    show_results(results, ["noise.scale", *shared], ["error/test"])
    lines = capsys.readouterr().out.splitlines()
    words = f"In every row: {', '.join(f'{name} = two words' for name in shared)}, n = {2 * SEEDS}."
    above = lines[: next(place for place, line in enumerate(lines) if line.startswith("noise."))]
    assert " ".join(above) == words
    assert all(name + " = two words" in "\n".join(above) for name in shared)
    for line, after in itertools.pairwise(above):
        assert len(line) <= 80 < len(line) + 1 + len(after.split(",")[0])


def test_what_is_piped_has_every_column(results: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    show_results(results, None, list(MEASURES))
    lines = capsys.readouterr().out.splitlines()
    assert all(name in lines[0] for name in MEASURES)
    assert "No room" not in "".join(lines)


def test_texts_are_cut_only_where_nothing_else_makes_room() -> None:
    long = "modulab.networks.perceptron.PerceptronOfALongName"
    layout = fitted(["network", "error/test"], [[long, "0.1"], ["b", "0.25 [0.2, 0.3]"]], 1, 40)
    assert layout.rows[0][0].endswith("..")
    assert layout.rows[1] == ["b", "0.25 [0.2, 0.3]"]
    assert max(map(len, plain_text(layout.headings, layout.rows).splitlines())) <= 40
    assert fitted(["network", "error/test"], [[long, "0.1"]], 1, None).rows == [[long, "0.1"]]


def test_transposing_twice_gives_the_table_back_and_markdown_keeps_cells_apart() -> None:
    headings, rows = ["a", "b|c"], [["1", "2"], ["3", "4"]]
    assert transposed(headings, rows) == (["a", "1", "3"], [["b|c", "2", "4"]])
    assert transposed(*transposed(headings, rows)) == (headings, rows)
    assert markdown(headings, rows).splitlines() == ["| a | b\\|c |", "|---|---|", "| 1 | 2 |", "| 3 | 4 |"]


def test_sorting_puts_the_best_first_and_rows_without_a_value_last(results: pd.DataFrame) -> None:
    results.loc[results["config.noise.scale"] == 0.4, "error/test"] = np.nan
    results["robustness/poisson/tolerance"] = -results["error/test"]
    summary = summarise(results, None, ["*"])
    for name, rising in (
        ("error/test", True),
        ("robustness/poisson/tolerance", False),
        ("activity/mean", False),
    ):
        means = ordered(summary, name).mean[name].tolist()
        present = [mean for mean in means if not math.isnan(mean)]
        assert present == sorted(present, reverse=not rising)
        assert means[: len(present)] == present
        assert sorted(ordered(summary, name, descending=True).mean[name].dropna(), reverse=True) == [
            mean for mean in ordered(summary, name, descending=True).mean[name] if not math.isnan(mean)
        ]
    assert ordered(summary, "noise.scale", descending=True).settings["noise.scale"].tolist()[0] == 0.4
    assert ordered(summary, "architecture").settings["architecture.name"].is_monotonic_increasing
    with pytest.raises(
        ConfigError, match=r"--sort eror/test: this table has no such column. Did you mean 'error/test'"
    ):
        ordered(summary, "eror/test")


def test_differences_are_paired_by_seed_with_students_interval(results: pd.DataFrame) -> None:
    found = compare(results, {"noise.scale": "0"}, None, ["error/test"])
    assert found.counts["completed"].tolist() == [SEEDS] * 4
    for row, setting in found.settings.iterrows():
        name, scale = setting["architecture.name"], setting["noise.scale"]
        pairs = [
            value("error/test", name, scale, seed) - value("error/test", name, 0.0, seed)
            for seed in range(SEEDS)
        ]
        half = stats.t.ppf(0.975, SEEDS - 1) * (1 + 1.25 / SEEDS) * np.std(pairs, ddof=1) / math.sqrt(SEEDS)
        assert found.mean.loc[row, "error/test"] == pytest.approx(np.mean(pairs))
        assert found.high.loc[row, "error/test"] == pytest.approx(np.mean(pairs) + half)
        assert found.low.loc[row, "error/test"] == pytest.approx(np.mean(pairs) - half)
    # The seed moves all of them together: only pairs show that noise matters.
    unpaired = summarise(results, None, ["error/test"])
    of = {
        tuple(row): place
        for place, row in enumerate(unpaired.settings[["architecture.name", "noise.scale"]].values)
    }
    quiet, noisy = of["dense", 0.0], of["dense", 0.4]
    assert unpaired.low["error/test"][noisy] < unpaired.high["error/test"][quiet]
    assert (found.low["error/test"][found.settings["noise.scale"] == 0.4] > 0).all()


def test_ratios_are_geometric_means_of_pairs(results: pd.DataFrame) -> None:
    found = compare(results, {"architecture": "dense"}, None, ["error/test"], ratios=True)
    for row, setting in found.settings.iterrows():
        logs = [
            math.log(value("error/test", "premodular", setting["noise.scale"], seed))
            - math.log(value("error/test", "dense", setting["noise.scale"], seed))
            for seed in range(SEEDS)
        ]
        assert found.mean.loc[row, "error/test"] == pytest.approx(math.exp(np.mean(logs)))
        assert (
            found.low.loc[row, "error/test"]
            < found.mean.loc[row, "error/test"]
            < found.high.loc[row, "error/test"]
        )
    results.loc[results["config.architecture.name"] == "dense", "error/test"] = 0.0
    nothing = compare(results, {"architecture": "dense"}, None, ["error/test"], ratios=True)
    assert nothing.mean["error/test"].isna().all()


def test_seeds_that_the_baseline_lacks_are_left_out(results: pd.DataFrame) -> None:
    lacking = (results["config.noise.scale"] == 0) & (results["config.seed"] >= 3)
    failed = results.assign(status=np.where(lacking, "failed", "completed"))
    for few in (results[~lacking], failed):
        found = compare(few.reset_index(drop=True), {"noise.scale": "0"}, None, ["error/test"])
        assert found.counts["completed"].tolist() == [3] * 4
    none = results[(results["config.noise.scale"] != 0) | (results["config.seed"] >= SEEDS)]
    with pytest.raises(ConfigError, match="no network has this value"):
        compare(none, {"noise.scale": "0"})


def test_pooled_settings_are_paired_too(results: pd.DataFrame) -> None:
    found = compare(results, {"noise.scale": "0"}, ["noise.scale"], ["error/test"])
    assert found.pooled == ("architecture.name",)
    each = compare(results, {"noise.scale": "0"}, None, ["error/test"])
    for row, scale in enumerate(found.settings["noise.scale"]):
        own = each.mean["error/test"][each.settings["noise.scale"] == scale]
        assert found.mean["error/test"][row] == pytest.approx(own.mean())


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        ({"noise.scale": "7"}, "no network has this value. Known: 0, 0.1, 0.4"),
        (
            {"nois.scale": "0"},
            "--baseline nois.scale: these results have no such setting. Did you mean 'noise.scale'",
        ),
        ({"seed": "0"}, "pairs are networks of equal seed"),
        (
            {"noise.name": "poisson", "noise.scale": "0"},
            "no network of these results has all of these settings",
        ),
        ({"noise.name": "poisson"}, "pairs are not unique. Name one of them, as in"),
    ],
)
def test_a_baseline_that_cannot_be_is_refused(
    baseline: dict[str, str], words: str, results: pd.DataFrame
) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(results, baseline)
    assert words in str(caught.value)


def test_folders_are_compared_in_one_table_and_paired_with_one_of_them(
    tmp_path: Path, command: Command
) -> None:
    save(tmp_path / "a")
    save(tmp_path / "b", shift=0.5)
    code, out, err = command("table", "a", "b", "--by", "noise.scale", "--metric", "error/test")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[:7]] == ["folder", "a", "a", "a", "b", "b", "b"]
    code, out, err = command("table", "a", "b", "--baseline", "a", "--metric", "error/test", "--csv", "-")
    assert code == 0, err
    table = pd.read_csv(io.StringIO(out))
    assert table["folder"].tolist() == ["b"] * 6
    np.testing.assert_allclose(table["error/test"], 0.5)
    np.testing.assert_allclose(table["error/test.low"], 0.5)
    code, _, err = command("table", "a", "a")
    assert code == 2
    assert "a folder is given twice" in err


def test_output_for_programs_holds_nothing_else(tmp_path: Path, command: Command) -> None:
    folder = save(tmp_path / "a")
    results = load_results(folder)
    expected = summarise(results, None, ["*"])
    code, out, err = command("table", "a", "--json", "--sort", "error/test")
    assert code == 0, err
    read = json.loads(out)
    means = [row["measures"]["error/test"]["mean"] for row in read["rows"]]
    assert means == sorted(expected.mean["error/test"])
    assert read["better"]["error/test"] == "lower"
    assert read["better"]["modularity/structural"] is None
    assert set(read["rows"][0]["settings"]) == {"architecture.name", "noise.name", "noise.scale"}
    code, out, err = command("table", "a", "--csv", "-")
    assert code == 0, err
    np.testing.assert_allclose(pd.read_csv(io.StringIO(out))["error/test"], expected.mean["error/test"])
    code, out, err = command("table", "a", "--markdown", "--metric", "error/test")
    assert code == 0, err
    assert all(line.startswith("|") for line in out.splitlines())
    code, out, err = command("table", "a", "--transpose", "--metric", "error/test,activity/mean")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[:6]] == [
        "architecture.name", "noise.name", "noise.scale", "n", "error/test", "activity/mean"
    ]  # fmt: skip


def test_options_that_do_not_go_together_are_refused(tmp_path: Path, command: Command) -> None:
    save(tmp_path / "a")
    for words, said in (
        (["--json", "--markdown"], "give one of them"),
        (["--json", "--csv", "-"], "give one of them"),
        (["--transpose", "--json"], "Leave out --transpose"),
        (["--ascending"], "needs --sort"),
        (["--ratio"], "--baseline noise.scale=0 --ratio"),
        (["--baseline", "noise.scale"], "give a setting and its value"),
        (["--baseline", "noise.scale=0,noise.scale=0.1"], "noise.scale is given twice"),
        (
            ["--baseline", "seed=1", "--baseline", "noise.scale=0"],
            "--baseline is given twice. Give it once, with commas",
        ),
        (["--metric", "a", "--by", "seed", "--metric", "b"], "--metric is given twice."),
        (["--metric", ","], "--metric: name a measure"),
        (["--csv", "nodir/x"], "--csv nodir/x: there is no folder nodir."),
        (["--csv", "a"], "--csv a: this is a folder."),
    ):
        code, out, err = command("table", "a", *words)
        assert (code, out) == (2, "")
        assert said in err


def test_a_difference_of_rounding_alone_is_no_effect(results: pd.DataFrame) -> None:
    own = results["config.noise.scale"] == 0.4
    exact = results["config.seed"] + 1.0
    results["modularity/functional"] = np.where(own, np.nextafter(exact, 9.0), exact)
    results["activity/mean"] = np.where(own, 5e-17, 0.0)
    results["error/test"] = np.where(own, exact * (1 + 1e-9), exact)
    found = compare(results, {"noise.scale": "0"}, ["noise.scale"], list(MEASURES)).mean.iloc[-1]
    assert found["modularity/functional"] == 0
    assert found["activity/mean"] == 0
    assert found["error/test"] == pytest.approx(3e-9, rel=1e-6)
    ratios = compare(results, {"noise.scale": "0"}, ["noise.scale"], list(MEASURES), ratios=True).mean.iloc[
        -1
    ]
    assert ratios["modularity/functional"] == 1


def test_figures_show_no_spread_that_is_rounding() -> None:
    values = np.array([0.3, 0.3 + 1e-16, np.nextafter(0.3, 1), np.nan])
    assert len(set(values[:3])) > 1
    shown = without_rounding(values)
    assert len(set(shown[:3])) == 1
    assert abs(shown[0] - 0.3) < 1e-15
    assert np.isnan(shown[3])
    assert without_rounding(np.array([5e-17, 0.0, 0.4])).tolist() == [0, 0, 0.4]
    kept = np.array([1.0, 1.0 + 1e-12, np.nan, np.inf])
    assert np.array_equal(without_rounding(kept), kept, equal_nan=True)


def test_a_cell_says_of_how_many_networks_it_is_where_some_lack_the_measure(results: pd.DataFrame) -> None:
    results.loc[results["config.seed"] > 2, "activity/mean"] = np.nan
    summary = summarise(results, ["architecture"], ["error/test", "activity/mean"])
    assert summary.taken["activity/mean"].tolist() == [9, 9]
    assert summary.counts["completed"].tolist() == [15, 15]
    _, rows = cells(summary)
    assert [row[-1].endswith(" (n=9)") for row in rows] == [True, True]
    assert not any("(n=" in row[-2] for row in rows)
    assert to_frame(summary)["activity/mean.n"].tolist() == [9, 9]


def test_by_nothing_is_one_row_of_all(tmp_path: Path, command: Command) -> None:
    save(tmp_path / "a")
    code, out, err = command("table", str(tmp_path / "a"), "--by", "", "--metric", "error/test")
    assert code == 0, err
    assert f"{len(ARCHITECTURES) * len(SCALES) * SEEDS} " in out
    assert "Pooled over architecture.name, noise.name, noise.scale" in out


def test_a_setting_that_is_named_twice_groups_once(tmp_path: Path, command: Command) -> None:
    save(tmp_path / "a")
    once, twice = (
        command("table", str(tmp_path / "a"), "--by", by) for by in ("noise.scale", "noise.scale,noise.scale")
    )
    assert once[0] == 0
    assert twice == once
