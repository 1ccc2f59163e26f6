import io
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modulab.errors import ConfigError
from modulab.results.layout import plain_text
from modulab.results.showing import show, show_results
from modulab.results.summary import (
    DEFAULT_METRICS,
    cells,
    choose_metrics,
    choose_settings,
    member_cells,
    summarise,
    to_csv,
)


def results(rows: list[dict[str, Any]]) -> pd.DataFrame:
    base = {"status": "completed", "error": None, "seconds": 1.0, "config.seed": 0, "version.modulab": "0"}
    return pd.DataFrame([{"run_id": str(place), **base, **row} for place, row in enumerate(rows)])


def grid(scales: list[float], seeds: int, value: Any) -> pd.DataFrame:
    return results(
        [
            {"config.seed": seed, "config.noise.scale": scale, "error/test": value(scale, seed)}
            for scale in scales
            for seed in range(seeds)
        ]
    )


def test_means_and_counts_are_those_of_each_group() -> None:
    summary = summarise(grid([0.2, 0.1], 4, lambda scale, seed: 10 * scale + seed))
    assert summary.settings["noise.scale"].tolist() == [0.1, 0.2]
    assert summary.mean["error/test"].tolist() == [2.5, 3.5]
    assert summary.counts["completed"].tolist() == [4, 4]


def test_a_table_names_what_it_pools_over_and_its_intervals_are_over_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = pd.concat(
        [
            grid([0.1, 0.2], 4, lambda scale, seed: 10 * scale + seed).assign(
                **{"config.architecture.name": name, "config.architecture.width": width}
            )
            for name, width in (("dense", 8), ("premodular", 9))
        ],
        ignore_index=True,
    )
    frame.loc[frame["config.architecture.name"] == "premodular", "error/test"] += 100
    alone = summarise(grid([0.1, 0.2], 4, lambda scale, seed: 10 * scale + seed))
    pooled = summarise(frame, ["noise.scale"])
    assert pooled.pooled == ("architecture.name",)
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(getattr(pooled, name), getattr(alone, name) + 50, rtol=1e-12)
    assert pooled.counts["completed"].tolist() == [8, 8]
    assert pd.read_csv(io.StringIO(to_csv(pooled)))["pooled_over"].tolist() == ["architecture.name"] * 2
    show_results(frame, ["noise.scale"], None)
    assert "Pooled over architecture.name, which --by does not name" in capsys.readouterr().out
    assert summarise(frame, ["architecture"]).pooled == ("noise.scale",)
    for by in (None, ["noise.scale", "architecture"]):
        assert summarise(frame, by).pooled == ()
        assert "pooled_over" not in to_csv(summarise(frame, by))


def test_one_seed_has_a_mean_and_no_interval() -> None:
    summary = summarise(grid([0.1, 0.2], 1, lambda scale, seed: scale))
    assert summary.low["error/test"].isna().all()
    assert cells(summary)[1] == [["0.1", "1", "0.1"], ["0.2", "1", "0.2"]]


def test_intervals_are_the_same_every_time() -> None:
    frame = grid([0.1], 5, lambda scale, seed: seed**2)
    assert to_csv(summarise(frame)) == to_csv(summarise(frame))


def test_failed_and_diverged_members_are_counted_and_not_averaged() -> None:
    frame = results(
        [
            {"error/test": 1.0, "config.noise.scale": 0.1},
            {"error/test": 9.0, "config.noise.scale": 0.1, "status": "diverged"},
            {"error/test": None, "config.noise.scale": 0.1, "status": "failed"},
            {"error/test": None, "config.noise.scale": 0.2, "status": "failed"},
        ]
    )
    summary = summarise(frame)
    assert summary.mean["error/test"].tolist()[0] == 1.0
    headings, rows = cells(summary)
    assert headings == ["noise.scale", "n", "diverged", "failed", "error/test ↓"]
    assert rows == [["0.1", "1", "1", "1", "1"], ["0.2", "0", "0", "1", "-"]]


def test_groups_are_what_varies_less_what_a_name_tells() -> None:
    def row(name: str, share: float, scale: float, seed: int) -> dict[str, Any]:
        return {
            "config.seed": seed,
            "config.architecture.name": name,
            "config.architecture.cross_connections": share,
            "config.architecture.width": 48,
            "config.noise.scale": scale,
        }

    frame = results(
        [
            row(name, share, scale, seed)
            for name, share in (("dense", 1.0), ("premodular", 0.0))
            for scale in (0.0, 0.1)
            for seed in (0, 1)
        ]
    )
    assert choose_settings(frame, None) == ["config.architecture.name", "config.noise.scale"]


def test_a_noise_scale_is_shown_even_where_the_name_tells_it() -> None:
    frame = results(
        [
            {"config.noise.name": name, "config.noise.scale": scale, "config.noise.constant": constant}
            for name, scale, constant in (("poisson", 0.0, 0.0), ("gaussian", 0.1, 1.0))
        ]
    )
    assert choose_settings(frame, None) == ["config.noise.name", "config.noise.scale"]


def test_groups_of_different_config_groups_never_hide_one_another() -> None:
    frame = results(
        [
            {"config.noise.name": noise, "config.regulariser.name": regulariser}
            for noise, regulariser in (("poisson", "none"), ("none", "l1"))
        ]
    )
    assert choose_settings(frame, None) == ["config.noise.name", "config.regulariser.name"]


def test_a_missing_setting_is_a_group_of_its_own() -> None:
    frame = results(
        [{"config.data.num_samples": value, "error/test": 1.0} for value in (pd.NA, 32, pd.NA, 32, 8)]
    )
    frame["config.data.num_samples"] = frame["config.data.num_samples"].astype("Int64")
    headings, rows = cells(summarise(frame))
    assert headings == ["data.num_samples", "n", "error/test ↓"]
    assert [row[:2] for row in rows] == [["8", "1"], ["32", "2"], ["-", "2"]]


def test_settings_can_be_named_by_key_or_group_and_the_seed_among_them() -> None:
    frame = results([{"config.noise.name": "poisson", "config.noise.scale": 0.1}])
    assert choose_settings(frame, ["noise", "seed", "noise.scale"]) == [
        "config.noise.name",
        "config.seed",
        "config.noise.scale",
    ]


def test_metrics_can_be_named_by_pattern() -> None:
    frame = results([{"error/test": 1.0, "error_under/poisson@0.1": 2.0, "error_under/poisson@0.3": 3.0}])
    assert choose_metrics(frame, None) == ["error/test", "error_under/poisson@0.3"]
    assert choose_metrics(frame, ["error_under/*", "error/test"]) == [
        "error_under/poisson@0.1",
        "error_under/poisson@0.3",
        "error/test",
    ]


def test_unknown_names_are_errors_that_suggest_the_right_one() -> None:
    frame = results([{"config.noise.scale": 0.1, "error/test": 1.0}])
    with pytest.raises(ConfigError, match=r"--by nois.scale: .* Did you mean 'noise.scale'"):
        choose_settings(frame, ["nois.scale"])
    with pytest.raises(ConfigError, match=r"--by scale: .* Did you mean 'noise.scale'"):
        choose_settings(frame, ["scale"])
    with pytest.raises(ConfigError, match=r"--metric eror/test: .* Did you mean 'error/test'"):
        choose_metrics(frame, ["eror/test"])


def test_csv_holds_every_number_in_full() -> None:
    frame = grid([0.1, 0.2], 3, lambda scale, seed: scale / (seed + 3))
    summary = summarise(frame, None, ["*"])
    read = pd.read_csv(io.StringIO(to_csv(summary)))
    assert read.columns.tolist() == [
        "noise.scale",
        "completed",
        "diverged",
        "failed",
        "missing",
        "error/test",
        "error/test.low",
        "error/test.high",
        "error/test.n",
    ]
    for end, frame in (("", summary.mean), (".low", summary.low), (".high", summary.high)):
        assert read[f"error/test{end}"].tolist() == pytest.approx(frame["error/test"].tolist(), rel=1e-14)


def test_one_member_shows_its_measures_without_those_at_many_levels() -> None:
    frame = results([{"error/test": 0.5, "error_under/poisson@0.1": 2.0, "error_under/poisson@0.3": 3.0}])
    headings, rows = member_cells(frame)
    assert headings == ["measure", "value"]
    assert rows == [["error/test ↓", "0.5"], ["error_under/poisson@0.3 ↓", "3"]]


def test_one_member_that_diverged_says_so_first() -> None:
    frame = results([{"error/test": None, "status": "diverged", "error": "at step 3"}])
    assert member_cells(frame)[1] == [["status", "diverged"], ["error", "at step 3"]]


def test_plain_text_is_aligned() -> None:
    assert plain_text(["a", "bb"], [["1", "2"], ["333", "4"]]) == "a    bb\n1    2\n333  4"


def test_default_metrics_are_named_as_in_the_science_page() -> None:
    assert set(DEFAULT_METRICS) >= {"error/test", "modularity/structural", "modularity/functional"}


def test_a_hundred_thousand_members_are_tabulated() -> None:
    seeds = 1000
    frame = pd.DataFrame(
        {
            "status": "completed",
            "error": None,
            "config.seed": np.tile(np.arange(seeds), 100),
            "config.noise.scale": np.repeat(np.arange(100) / 100, seeds),
            "error/test": np.repeat(np.arange(100.0), seeds),
        }
    )
    summary = summarise(frame)
    assert summary.mean["error/test"].tolist() == list(np.arange(100.0))


def test_texts_of_a_table_are_neither_markup_nor_control_sequences(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for terminal in ("0", "1"):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        show(["name", "[red]"], [["[/red]", "\x1b[2Jcleared"]])
        printed = capsys.readouterr().out
        assert "[/red]" in printed
        assert "[red]" in printed
        assert "\\x1b[2Jcleared" in printed
        assert "\x1b[2J" not in printed


def test_a_drawn_table_breaks_no_word_where_the_longest_ones_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["a", "regulariser", "in", "classification:", "of", "weights"] * 4
    rows = [["C2", " ".join(words), "not supported", "0.1 [0.05, 0.2]"]]
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    for width in (52, 60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        show(["claim", "in words", "verdict", "effect"], rows)
        printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        assert max(map(len, printed.splitlines())) <= width
        cells = [line.split("│")[2].strip() for line in printed.splitlines() if "│" in line]
        assert " ".join(cells).split() == words
