"""Whatever states the network contract trains, is measured, kept, tabulated, reported and verified."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import modulab
from modulab.errors import ConfigError, ForeignError
from modulab.metrics.measure import find_measures, skipped_measures
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation, Site
from modulab.streams import member_keys
from modulab.training.program import initialise, network_of
from tests.command_line import Command
from tests.members import CONFIGS, make_member
from tests.networks.opaque import Opaque
from tests.training.fitting import trained_parameters

OPAQUE = {"architecture___target_": "tests.networks.opaque.OpaqueArchitecture"}
SMALL = """
    trainer.engine=eager trainer.accelerator=cpu trainer.progress=off trainer.threads=1 architecture.width=6
    training.steps=20 training.curve_every=10 training.batch_size=8 data.num_samples=32 noise=poisson noise.scale=0.2
    probes=forgetting probes.num_samples=64 probes.repeats=2 probes.levels=[0.3] probes.adaptation_steps=4
    task.support=band population.seeds=2
"""
MEASURES = yaml.safe_load((CONFIGS / "probes" / "default.yaml").read_text())["measures"] | {
    "forgetting": "modulab.metrics.forgetting.measure_forgetting",
    "cross_tangent": {"_target_": "modulab.metrics.tangent.CrossTangent", "points": 4},
}
NEED_LAYERS = {"structural", "frame_null", "unit_specialisation"}


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("hidden", [(5,), (5, 4)])
def test_general_measures_equal_the_fast_ones_of_perceptrons(task: str, hidden: tuple[int, ...]) -> None:
    member = make_member({"task": task}, task__support="band", architecture__activation="tanh",
                         architecture__width=5, architecture__depth=len(hidden))  # fmt: skip
    perceptron = member.architecture.network(member.task)
    opaque = Opaque(perceptron.in_features, perceptron.out_features, perceptron)
    keys = member_keys([1, 2, 3])
    _, parameters = perceptron.initialise([member.architecture] * 3, member.task.partition, keys)
    changes = {"num_samples": 100, "repeats": 3, "adaptation_steps": 4}
    settings = member.probes.model_copy(update={**changes, "measures": MEASURES})
    fast, general = (
        measure_population(member.task, NetworkPopulation(network, parameters), keys, settings)
        for network in (perceptron, opaque)
    )
    without_layers = {name for name in fast if name not in general}
    assert without_layers == {
        "modularity/structural", "modularity/structural_frame_null", "modularity/structural_excess",
        "modularity/structural_excess_scaled", "modularity/unit_specialisation",
    }  # fmt: skip
    for name, values in general.items():
        torch.testing.assert_close(values, fast[name], rtol=2e-4, atol=2e-5, msg=name)
    measures = find_measures(settings)
    skipped = skipped_measures(measures, opaque, member.task)
    no_logits = set() if task == "classification" else {"functional_centred"}
    assert set(skipped) == NEED_LAYERS | no_logits
    assert set(skipped_measures(measures, perceptron, member.task)) == no_logits


@pytest.mark.parametrize("regulariser", ["none", "jacobian"])
def test_members_of_a_general_network_train_as_those_of_the_perceptron_inside(regulariser: str) -> None:
    groups = {"noise": "poisson", "regulariser": regulariser}
    settings = {"noise__scale": 0.2, "training__steps": 5, "architecture__width": 6, "architecture__depth": 2}
    plain, opaque = (
        trained_parameters([make_member(groups, seed=seed, **settings, **kind) for seed in range(3)])
        for kind in ({}, OPAQUE)
    )
    torch.testing.assert_close(opaque, plain)


def test_commands_go_all_the_way_with_a_network_of_ones_own(
    tmp_path: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    own = "architecture._target_=tests.networks.opaque.OpaqueArchitecture"
    code, out, errors = command("train", *SMALL.split(), own, f"hydra.run.dir={folder}")
    assert code == 0, out + errors
    results = modulab.load_results(folder)
    assert results["config.architecture._target_"].unique().tolist() == [own.partition("=")[2]]
    assert all("structural: the network is not a sequence of layers" in text for text in results["skipped"])
    plain = modulab.train(SMALL.split(), folder=tmp_path / "plain")
    for name in ("error/test", "modularity/functional", "error_under/poisson@0.3", "forgetting/others_rise"):
        pd.testing.assert_series_equal(results[name], plain.table[name], rtol=1e-3)
    assert set(modulab.load_members(folder)[0].weights) == {"weight.0", "bias.0", "weight.1", "bias.1"}

    code, out, errors = command("table", folder, "--metric", "modularity/structural")
    assert (code, "was skipped" in errors or "were skipped" in errors) == (2, True), errors
    module = "tests.networks.opaque"
    code, out, errors = command("rerun", folder, "--member", "0", "--import", module)
    assert code == 0, out + errors
    code, out, errors = command("report", folder, "--import", module)
    assert code == 0, out + errors
    page = next(Path(folder).rglob("*.html")).read_text()
    assert "structural, frame_null, unit_specialisation: the network is not a sequence of layers" in page


@dataclass(frozen=True)
class WrongSites(Opaque):
    """A network whose sites are not as a pass calls `tap`."""

    stated: str

    @property
    def sites(self) -> tuple[Site, ...]:
        sites = self.inside.sites
        wrong = {
            "backwards": sites[::-1],
            "one too many": (*sites, Site("nowhere", 3)),
            "a unit too many": (replace(sites[0], units=sites[0].units + 1), *sites[1:]),
        }
        return wrong[self.stated]


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (
            "backwards",
            r"WrongSites.sites: it states \['hidden.1', 'hidden.0'\], and a pass calls tap at \['hidden.0'",
        ),
        ("one too many", r"WrongSites.sites: it states \['hidden.0', 'hidden.1', 'nowhere'\]"),
        ("a unit too many", r"WrongSites.forward: the activity at hidden.0 is .* shape \(1, 6, 2\)"),
    ],
)
def test_sites_that_are_not_those_of_a_pass_are_refused_before_training(stated: str, words: str) -> None:
    member = make_member(architecture__width=6, architecture__depth=2, **OPAQUE)
    right = network_of(member)
    assert isinstance(right, Opaque)
    wrong = WrongSites(right.in_features, right.out_features, right.inside, stated)
    with pytest.raises(ForeignError, match=words):
        initialise([member], wrong)


def test_mixing_is_refused_before_training_where_a_network_cannot_take_it_up() -> None:
    with pytest.raises(ConfigError, match=r"task\.code=mixed needs a network whose first weights"):
        make_member(task__code="mixed", **OPAQUE)
    assert make_member(task__code="mixed").task.mixing
