from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from modulab.report.noise_figure import noise_arms, noise_figure


def results() -> pd.DataFrame:
    rows = [
        {
            "status": "completed",
            "config.task.support": support,
            "config.task.modules": 2,
            "config.architecture.name": architecture,
            "config.noise.name": "poisson",
            "config.noise.scale": scale,
            "config.regulariser.strength": strength,
            "modularity/structural": 0.5 + 0.1 * seed,
            "error_under/poisson@0.3": 0.05 + 0.01 * seed,
        }
        for support, architecture, scale, strength in (
            ("full", "dense", 0.0, 0.0), ("full", "dense", 0.2, 0.0), ("full", "dense", 0.0, 0.02),
            ("full", "premodular", 0.2, 0.0), ("band", "dense", 0.2, 0.0),
        )
        for seed in range(3)
    ]  # fmt: skip
    rows.append({**rows[0], "status": "failed", "modularity/structural": None})
    return pd.DataFrame(rows)


def test_matched_regulariser_stands_at_the_noise_scale_it_is_the_expectation_of() -> None:
    arms = noise_arms(results())
    matched = arms[arms["arm"] == "dense, matched regulariser"]
    assert len(matched) == 3
    assert np.sqrt(0.02 * 2) == pytest.approx(matched["sigma"].iloc[0]) == pytest.approx(0.2)


def test_arms_leave_out_other_supports_and_unfinished_members() -> None:
    arms = noise_arms(results())
    assert len(arms) == 12
    assert set(arms["arm"]) == {
        "dense, matched regulariser",
        "dense, Poisson noise",
        "premodular, Poisson noise",
    }


def test_noise_figure_draws_every_arm_in_its_own_colour(tmp_path: Path) -> None:
    noise_figure(results(), tmp_path / "figure.png")
    image = imread(tmp_path / "figure.png")[..., :3]
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)):
        near = np.abs(image - np.array(colour) / 255).max(axis=2) < 0.02
        assert near.sum() > 50, colour
