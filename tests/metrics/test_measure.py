"""Measures with parameters, what they need, the words for their values, and curves of any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import modulab
from modulab.errors import ConfigError
from modulab.metrics.measure import Column, curve_measures, find_measure, shipped_measures
from modulab.report.style import label
from modulab.results.store import load_curves
from tests.command_line import Command
from tests.members import make_member

OWN = '''
from pydantic import Field
from modulab.metrics.measure import Column, Measure

class WeightPower(Measure):
    """Sum of |W|^p over all weights."""

    power: float = Field(gt=0)

    @property
    def needs(self):
        return ("edges",)

    @property
    def columns(self):
        return (Column("weights/power", "Sum of powers of weights"),)

    def take(self, probe):
        powers = [edges.weights.abs().pow(self.power).sum(dim=(1, 2)) for edges in probe.network.edges()]
        return {"weights/power": sum(powers)}

def plain(probe):
    return {"weights/first": probe.network.edges()[0].weights[:, 0, 0]}
'''
SMALL = """
    trainer.engine=eager trainer.progress=off training.steps=6 training.curve_every=3 training.batch_size=4
    data.num_samples=8 probes.num_samples=16 architecture.width=4
"""


def test_measure_with_parameters_is_taken_checked_and_recorded_along_training(command: Command) -> None:
    Path("own_measures.py").write_text(OWN)
    named = ["+probes.measures.mine._target_=own_measures.WeightPower", "+probes.measures.mine.power=2.0"]
    curves = "probes.curves=[weights/power,weights/first,activity/mean]"
    plain = "+probes.measures.plain=own_measures.plain"
    code, out, errors = command("train", *SMALL.split(), *named, plain, curves, "hydra.run.dir=run")
    assert code == 0, out + errors
    results = modulab.load_results("run")
    [population] = modulab.load_members("run")
    expected = sum(part.square().sum() for name, part in population.weights.items() if "weight" in name)
    assert results["weights/power"][0] == pytest.approx(float(expected), rel=1e-5)
    assert results["config.probes.measures.mine.power"].tolist() == [2.0]
    assert "weights/first" in results
    found = load_curves("run")
    assert set(found["measure"]) == {"training/loss", "weights/power", "weights/first", "activity/mean"}
    last = found[(found["measure"] == "weights/power") & (found["step"] == 6)]["value"].iloc[0]
    assert last == pytest.approx(results["weights/power"][0])
    assert command("rerun", "run", "--member", "0", "--import", "own_measures")[0] == 0
    code, _, errors = command("rerun", "run", "--member", "0")
    assert (code, "--import own_measures" in errors) == (2, True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+probes.measures.mine.power=-1.0", "probes.measures.mine.power=-1.0"),
        ("+probes.measures.mine.pover=1.0", "Did you mean 'power'"),
        ("+probes.measures.mine.power=2.0 probes.curves=[error/tset]", "Did you mean 'error/test'"),
    ],
)
def test_wrong_parameters_and_curves_are_refused_before_training(
    override: str, message: str, command: Command
) -> None:
    Path("own_measures.py").write_text(OWN)
    own = "+probes.measures.mine._target_=own_measures.WeightPower"
    code, _, errors = command("train", *SMALL.split(), own, *override.split(), "hydra.run.dir=run")
    assert (code, message in errors) == (2, True), errors
    assert not Path("run").exists()


def test_curves_name_values_or_patterns_and_run_only_the_measures_that_give_them() -> None:
    def chosen(*curves: str) -> set[str]:
        return set(curve_measures(make_member(probes__curves=list(curves)).probes))

    assert chosen("error/test", "modularity/structural") == {"errors", "structural"}
    assert chosen("error_under/poisson@0.3") == {"poisson"}
    assert chosen("modularity/*") == {
        "structural", "frame_null", "functional", "functional_centred", "unit_specialisation", "ablation"
    }  # fmt: skip
    assert chosen() == set()
    # One that the member does not take itself is found among those that come with modulab.
    assert chosen("forgetting/others_rise") == {"modulab.metrics.forgetting.measure_forgetting"}
    tangent = curve_measures(make_member(probes__curves=["forgetting/cross_tangent"]).probes)
    path = "modulab.metrics.tangent.CrossTangent"
    assert tangent == {path: {"_target_": path, "points": 32}}
    with pytest.raises(ConfigError, match="Did you mean 'activity/mean'"):
        chosen("activity/maen")


def test_every_shipped_measure_says_what_its_values_are_called() -> None:
    assert len(shipped_measures()) == 39
    assert all(find_measure(value, path).columns for path, value in shipped_measures().items())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("error_under/poisson@0.3", "Error under Poisson noise 0.3"),
        ("error_under/poisson", "Error under Poisson noise"),
        ("robustness/ablation/tolerance", "Tolerance to ablation"),
        ("modularity/structural_excess", "Excess of structural modularity"),
        ("forgetting/cross_tangent", "Tangent kernel across modules"),
        ("error/module_12", "Test error of module 12"),
        ("error_beyond/own_range@2", "Error, own inputs at 2 times their range"),
        ("config.noise.scale", "Noise scale σ in training"),
        ("my/measure", "my/measure"),
    ],
)
def test_labels_are_those_that_measures_state(name: str, words: str) -> None:
    assert label(name) == words


def test_column_describes_only_its_own_family() -> None:
    column = Column("a/b@{level}", "B at {level}", family="B")
    assert column.label_of("a/b@0.1") == "B at 0.1"
    assert column.label_of("a/b") == "B"
    assert column.label_of("a/c") is None
    assert Column("a.b", "B").label_of("axb") is None


def test_measure_without_a_function_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not a function"):
        find_measure("modulab.metrics.probe.BLOCK_BYTES", "probes.measures.mine")
