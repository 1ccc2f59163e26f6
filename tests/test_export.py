"""Exported weights are those of the networks, and other programs can use them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import modulab
from modulab.errors import ConfigError
from tests.command_line import SMALL, Command
from tests.networks.modules import Rich


def trained(command: Command, *overrides: str) -> Path:
    small = [word for word in SMALL if not word.startswith("architecture.width")]
    code, _, err = command("train", *small, "population.seeds=3", "hydra.run.dir=run", *overrides)
    assert code == 0, err
    return Path("run")


def test_a_perceptron_in_numpy_gives_the_outputs_of_the_network(command: Command) -> None:
    folder = trained(command, "architecture.width=6", "architecture.depth=2")
    code, out, _ = command("export", str(folder))
    assert code == 0
    assert out == "Wrote the weights of 3 networks to run/weights; networks.json lists them.\n"
    [group] = modulab.load_members(folder)
    inputs, _ = group.points(50)
    outputs = group.outputs(inputs)
    index = json.loads((folder / "weights/networks.json").read_text())
    assert list(index) == list(group.run_ids)
    for place, (name, entry) in enumerate(index.items()):
        assert (entry["config"], entry["steps"]) == (group.configs[place], 4)
        assert entry["file"] == f"{name}.npz"
        weights = np.load(folder / "weights" / entry["file"])
        activity = inputs[place]
        for layer in range(3):
            activity = activity @ weights[f"weight.{layer}"].T + weights[f"bias.{layer}"]
            activity = np.maximum(activity, 0) if layer < 2 else activity
        np.testing.assert_allclose(activity, outputs[place], rtol=1e-4, atol=1e-6)


def test_a_module_of_the_users_takes_its_weights_back(command: Command) -> None:
    folder = trained(
        command, "architecture=torch", "architecture.module={_target_: tests.networks.modules.Rich}",
    )  # fmt: skip
    code, _, err = command(
        "export", str(folder), "--format", "safetensors", "--to", "there", "--members", "1"
    )
    assert code == 0, err
    [group] = modulab.load_members(folder, 1)
    inputs, _ = group.points(20, modules=["tests.networks.modules"])
    [file] = Path("there").glob("*.safetensors")
    assert file.stem == group.run_ids[0]
    module = Rich(inputs.shape[2], 2)
    missing, unexpected = module.load_state_dict(
        {name: torch.from_numpy(values) for name, values in load_file(file).items()}, strict=False
    )
    assert unexpected == []
    assert set(missing) <= {"tied.weight", "places"}
    outputs = module(torch.from_numpy(inputs[0])).detach().numpy()
    expected = group.outputs(inputs, modules=["tests.networks.modules"])[0]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_exported_is_said_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained(command, "architecture.width=6")
    for words, complaint in (
        (["--format", "onnx"], "there is no such format. Known: npz, safetensors."),
        (["--members", "7"], "--members 7"),
    ):
        code, _, err = command("export", str(folder), *words)
        assert code == 2
        assert complaint in err
        assert len(err.splitlines()) == 1
    assert command("export", str(tmp_path / "none"))[0] == 2
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ConfigError, match=r"pip install 'modulab\[export\]'"):
        modulab.export_weights(folder, format="safetensors")
    assert not list(folder.glob("weights/*"))
