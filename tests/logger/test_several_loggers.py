"""CSV files and event files say what results say, and no logger changes a bit of them."""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tensorboardX.proto.event_pb2 import Event

import modulab
from tests.command_line import SMALL

GRID = ["population.grid={architecture: [dense, premodular], noise.scale: [0, 0.1]}", "population.seeds=2"]
ALL = ["logger=[csv,tensorboard,wandb]", "logger.wandb.mode=offline"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of one run with no logger, and of the same with all of them."""
    plain, logged = (tmp_path_factory.mktemp(name) for name in ("plain", "logged"))
    modulab.train([*SMALL, *GRID], folder=plain)
    modulab.train([*SMALL, *GRID, *ALL], folder=logged)
    return plain, logged


def event_scalars(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Yield tag, step and value of each scalar in event files, which are protocol buffers between lengths and sums."""
    for file in folder.glob("events.*"):
        content = file.read_bytes()
        place = 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 12 + length + 4
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    yield value.tag, event.step, value.simple_value


def test_loggers_change_no_bit_of_results_and_curves(folders: tuple[Path, Path]) -> None:
    plain, logged = (modulab.load_results(folder).drop(columns="seconds") for folder in folders)
    pd.testing.assert_frame_equal(plain, logged, check_exact=True)
    one, other = (pd.read_parquet(folder / "curves.parquet") for folder in folders)
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_csv_files_say_what_results_and_curves_say(folders: tuple[Path, Path]) -> None:
    _, folder = folders
    results, curves = modulab.load_results(folder), pd.read_parquet(folder / "curves.parquet")
    assert {path.name for path in (folder / "csv").iterdir()} == set(results["run_id"])
    for row in results.to_dict("records"):
        place = folder / "csv" / row["run_id"]
        *points, final = csv.DictReader((place / "metrics.csv").read_text().splitlines())
        logged = {
            (name, int(point["step"])): float(value)
            for point in points
            for name, value in point.items()
            if value and name != "step"
        }
        own = curves[curves["run_id"] == row["run_id"]]
        assert logged == {(each.measure, each.step): each.value for each in own.itertuples()}
        measures = {
            name.removeprefix("final/"): float(v) for name, v in final.items() if v and name != "step"
        }
        assert measures == {name: row[name] for name in measures}
        assert measures.keys() >= {"error/test", "modularity/structural", "error_under/poisson@0.3"}
        settings = yaml.safe_load((place / "hparams.yaml").read_text())
        assert settings["noise"]["scale"] == row["config.noise.scale"]
        assert settings["status"] == "completed"


def test_event_files_say_what_results_and_curves_say(folders: tuple[Path, Path]) -> None:
    _, folder = folders
    results, curves = modulab.load_results(folder), pd.read_parquet(folder / "curves.parquet")
    assert {path.name for path in (folder / "tensorboard").iterdir()} == set(results["run_id"])
    for row in results.to_dict("records"):
        scalars = {
            (tag, step): value for tag, step, value in event_scalars(folder / "tensorboard" / row["run_id"])
        }
        own = curves[curves["run_id"] == row["run_id"]]
        for each in own.itertuples():
            assert scalars[each.measure, each.step] == np.float32(each.value)
        assert scalars["final/error_under/poisson_at_0.3", 4] == np.float32(row["error_under/poisson@0.3"])
