"""Networks are rebuilt from a folder of results: what they measure is what the table says."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

import modulab
from modulab.errors import ConfigError
from modulab.results.manifest import manifest_of
from modulab.sweep.trained import TrainedMembers
from tests.command_line import SMALL

BEGUN = Path(__file__).parents[1] / "golden" / "earlier_version"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    grid = (
        "population.grid=[{architecture: [dense, premodular], noise.scale: [0, 0.2]},"
        "{architecture: [premodular], architecture.match: [parameters], noise.sites: [input]}]"
    )
    folder = tmp_path_factory.mktemp("trained") / "results"
    modulab.train([*SMALL, grid, "population.seeds=2", "noise=poisson"], folder=folder)
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def test_rebuilt_networks_measure_every_number_of_their_rows(folder: Path) -> None:
    table = modulab.load_results(folder)
    # 2 x 2 x 2 seeds in one population, and 2 that are wider in another.
    assert len(table) == 10
    assert (table["status"] == "completed").all()
    groups = modulab.load_members(folder)
    assert sorted(len(group.configs) for group in groups) == [2, 8]
    compared = 0
    for group in groups:
        measures = group.measures()
        for place, config in enumerate(group.configs):
            row = table[
                (table["config.seed"] == config["seed"])
                & (table["config.architecture.name"] == config["architecture"]["name"])
                & (table["config.architecture.match"] == config["architecture"]["match"])
                & (table["config.noise.scale"] == config["noise"]["scale"])
                & (table["config.noise.sites"] == config["noise"]["sites"])
            ]
            assert len(row) == 1
            for name, values in measures.items():
                recorded = float(row[name].iloc[0])
                assert values[place] == recorded or math.isnan(recorded), name
                compared += not math.isnan(recorded)
    assert compared > 100
    assert {"error/test", "modularity/structural"} <= set(table)


def test_rebuilt_networks_run_on_inputs_of_ones_own(folder: Path) -> None:
    for group in modulab.load_members(folder):
        networks = group.population()
        inputs = torch.linspace(-1, 1, 5 * networks.network.in_features).view(1, 5, -1)
        outputs = networks.forward(inputs.expand(networks.num_members, -1, -1))
        weights = group.weights
        hidden = torch.relu(inputs @ weights["weight.0"].mT + weights["bias.0"][:, None])
        expected = hidden @ weights["weight.1"].mT + weights["bias.1"][:, None]
        torch.testing.assert_close(outputs, expected)


def test_networks_of_an_earlier_version_are_rebuilt() -> None:
    table = modulab.load_results(BEGUN)
    done = table[table["status"] == "completed"]
    found = {
        (config["architecture"]["width"], config["seed"]): error
        for group in modulab.load_members(BEGUN)
        for config, error in zip(group.configs, group.measures()["error/test"], strict=True)
    }
    assert len(done) == 2
    for _, row in done.iterrows():
        error = found[row["config.architecture.width"], row["config.seed"]]
        assert error == pytest.approx(row["error/test"], rel=1e-5)


def test_without_a_manifest_weights_are_read_and_networks_refused(copied: Path) -> None:
    before: list[TrainedMembers] = modulab.load_members(copied)
    for group in before:
        manifest_of(group.file).unlink()
    for group, whole in zip(modulab.load_members(copied), before, strict=True):
        assert torch.equal(group.parameters, whole.parameters)
        assert [each["seed"] for each in group.configs] == [each["seed"] for each in whole.configs]
        with pytest.raises(ConfigError, match="_target_"):
            group.population()


def test_a_manifest_of_other_members_is_refused(copied: Path) -> None:
    one, other = (manifest_of(group.file) for group in modulab.load_members(copied))
    shutil.copyfile(one, other)
    with pytest.raises(ConfigError, match="do not list the same members"):
        modulab.load_members(copied)


def test_configs_that_ask_for_other_parameters_are_refused(folder: Path) -> None:
    group = modulab.load_members(folder)[0]
    wider = [each | {"architecture": each["architecture"] | {"width": 40}} for each in group.configs]
    changed = TrainedMembers(wider, group.parameters, group.layout, group.file, group.steps)
    with pytest.raises(ConfigError, match="different parameters"):
        changed.population()
