"""What code outside modulab returns, and where it draws from, is checked wherever modulab calls it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from modulab.config.settings import read_run
from modulab.errors import ConfigError, ForeignError
from modulab.foreign import is_foreign, own_draws_only
from modulab.losses import SquaredLoss
from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe
from modulab.networks.perceptron import Perceptron
from modulab.regularisers import PowerRegulariser, Rearrangement, Regulariser
from modulab.results.store import load_curves, load_results
from modulab.results.summary import lost_measures, metric_names
from modulab.streams import Stream, bernoullis, fold_in, member_keys, normals
from modulab.sweep.run import plan_work
from modulab.sweep.this_machine import run_work
from modulab.tasks.base import Samples
from modulab.tasks.regression import RegressionTask
from modulab.training.recorder import Recorder
from tests.members import EAGER, member_config

QUICK: dict[str, Any] = {
    "training__steps": 6, "training__curve_every": 3, "training__batch_size": 8, "architecture__width": 4,
    "probes__num_samples": 64, "probes__repeats": 1, "data__num_samples": 16, "probes__curves": ["error/test"],
    "probes__measures": {"errors": "modulab.metrics.errors.measure_errors"},
}  # fmt: skip
DRAWS: dict[str, Callable[[], float]] = {
    "torch": lambda: float(torch.rand(())),
    "numpy": lambda: float(np.random.normal()),  # noqa: NPY002
    "random": random.random,
}
"""A draw from each global generator."""
HERE = __name__


def configs(seeds: range = range(3), **overrides: Any) -> list[dict[str, Any]]:
    return [member_config(seed=seed, **(QUICK | overrides)) for seed in seeds]


def trained(members: list[dict[str, Any]], folder: Path) -> pd.DataFrame:
    run_work(plan_work([read_run(config) for config in members], EAGER, folder), folder)
    return load_results(folder).set_index("config.seed").sort_index()


@pytest.mark.parametrize("generator", DRAWS)
def test_a_draw_from_each_global_generator_is_noticed_of_foreign_code_alone(
    generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "beartype")  # with which Python's generator does not count
    for _ in range(2):  # NumPy draws normal numbers in pairs, and keeps the second
        with (
            pytest.raises(ForeignError, match=f"draw by {HERE}.configs from the .* generator of {generator}"),
            own_draws_only(configs, SquaredLoss),
        ):
            DRAWS[generator]()
    with own_draws_only(SquaredLoss, SquaredLoss()):
        DRAWS[generator]()
    with own_draws_only(configs):
        np.random.default_rng(0).normal()
        torch.rand(2, generator=torch.Generator().manual_seed(0))
        normals(torch.zeros(1, 2, dtype=torch.int32), 1, 2)


def test_code_is_foreign_by_the_module_in_which_it_is_defined() -> None:
    assert is_foreign(configs)
    assert is_foreign(OwnMeasure)
    assert is_foreign(np.array)
    assert not is_foreign(SquaredLoss())
    assert not is_foreign(normals)


def _squares(probe: Probe) -> torch.Tensor:
    return sum(edges.weights.square().sum(dim=(1, 2)) for edges in probe.network.edges())


RESULTS: dict[str, tuple[Callable[[Probe], object], str]] = {
    "a list": (lambda probe: [1.0], "it is of type list. Return a dict"),
    "nothing": (lambda probe: None, "it is None. Return a dict"),
    "one number": (lambda probe: {"own/x": 1.0}, "'own/x' is of type float, for 3 networks"),
    "another shape": (lambda probe: {"own/x": torch.zeros(len(probe.keys), 1)}, r"Tensor, shape \(3, 1\), for"),
    "texts": (lambda probe: {"own/x": ["a"] * len(probe.keys)}, "'own/x' is of type list"),
    "complex numbers": (lambda probe: {"own/x": 1j * _squares(probe)}, r"Tensor, complex shape \(3,\)"),
    "a name of a setting": (lambda probe: {"config.seed": _squares(probe)}, "a wrong name: 'config.seed' is"),
    "no name": (lambda probe: {3: _squares(probe)}, "a wrong name: 3 is no text"),
    "the name of another": (lambda probe: {"error/test": _squares(probe)}, "is measured by probes.measures.errors"),
    "a change": (lambda probe: {"own/x": probe.network.parameters.mul_(2).sum(dim=1)}, "probe.network.parameters in"),
    "a change of points": (lambda probe: {"own/x": probe.samples.inputs.zero_()[:, 0, 0]}, "probe.samples.inputs in"),
    "torch's draws": (lambda probe: {"own/x": torch.rand(len(probe.keys))}, "global random generator of torch"),
}  # fmt: skip
CHOSEN: list[Callable[[Probe], object]] = []
"""What `own_measure` does."""


def own_measure(probe: Probe) -> object:
    return CHOSEN[0](probe)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return results of modulab's own code."""
    return trained(configs(), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("kind", RESULTS)
def test_a_measure_with_a_wrong_result_is_missing_alone_and_says_why(
    kind: str, plain: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, message = RESULTS[kind]
    monkeypatch.setattr(f"{HERE}.CHOSEN", [function])
    # Before the others, which it must not affect, unless it has the name of one.
    own, others = {"own": f"{HERE}.own_measure"}, QUICK["probes__measures"]
    measures = others | own if kind == "the name of another" else own | others
    table = trained(configs(probes__measures=measures), tmp_path)
    assert table["status"].tolist() == ["completed"] * 3
    [told] = lost_measures(table)
    assert told.startswith("3 without a measure: probes.measures.own: failed with a")
    # Networks are measured again one by one, each beside a duplicate, to find those that it fails with.
    assert pd.Series([told]).str.contains(message.replace("3 networks", "2 networks").replace("(3", "(2"))[0]
    pd.testing.assert_frame_equal(table[metric_names(plain)], plain[metric_names(plain)])


def _fails_with(seed: int) -> Callable[[Probe], bool]:
    [key] = member_keys([seed]).tolist()
    return lambda probe: key in probe.keys.tolist()


def _squares_unless(fails: Callable[[Probe], bool]) -> Callable[[Probe], object]:
    def measure(probe: Probe) -> object:
        if fails(probe):
            raise LookupError("no squares")
        return {"error/own": _squares(probe)}

    return measure


CURVES: dict[str, Any] = {
    "probes__measures": QUICK["probes__measures"] | {"own": f"{HERE}.own_measure"},
    "probes__curves": ["error/test", "error/own"],
}
GAP = "probes.measures.own: curves lack points from step 3 on: LookupError: no squares"


def test_a_measure_that_fails_in_training_leaves_a_gap_in_its_own_curve_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{HERE}.CHOSEN", [_squares_unless(lambda probe: False)])
    whole = trained(configs(**CURVES), tmp_path / "whole")
    points: list[int] = []
    add_point, fails = Recorder._note_point, _fails_with(seed=1)
    monkeypatch.setattr(
        Recorder, "_note_point", lambda self, learner: (points.append(1), add_point(self, learner))[1]
    )
    monkeypatch.setattr(f"{HERE}.CHOSEN", [_squares_unless(lambda probe: fails(probe) and len(points) == 1)])
    table = trained(configs(**CURVES), tmp_path / "gap")
    assert table["status"].tolist() == ["completed"] * 3
    assert lost_measures(table) == [f"1 with an incomplete curve: {GAP}"]
    names = metric_names(whole)
    pd.testing.assert_frame_equal(table[names], whole[names])
    gap, curves = (
        load_curves(tmp_path / folder).set_index(["run_id", "measure", "step"])["value"]
        for folder in ("gap", "whole")
    )
    lost = curves.index.difference(gap.dropna().index)
    assert lost.tolist() == [(whole.loc[1, "run_id"], "error/own", 3)]
    pd.testing.assert_series_equal(gap.drop(lost, errors="ignore"), curves.drop(lost))


def test_a_network_that_stops_by_a_measure_that_fails_is_lost_alone_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{HERE}.CHOSEN", [_squares_unless(_fails_with(seed=1))])
    monitored = {"training__monitor": "error/own", "training__stopping_threshold": 1e-9}
    table = trained(configs(**CURVES, **monitored), tmp_path)
    assert table["status"].tolist() == ["completed", "failed", "completed"]
    assert f"training.monitor=error/own: the value at step 3 is missing. {GAP}" in table.loc[1, "error"]


@pytest.mark.parametrize("convert", [torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.float, tuple])
def test_a_measure_may_return_arrays_and_lists_of_numbers(
    convert: Callable[[torch.Tensor], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{HERE}.CHOSEN", [lambda probe: {"own/x": convert(_squares(probe))}])
    table = trained(configs(probes__measures={"own": f"{HERE}.own_measure"}), tmp_path)
    monkeypatch.setattr(f"{HERE}.CHOSEN", [lambda probe: {"own/x": _squares(probe)}])
    plain = trained(configs(probes__measures={"own": f"{HERE}.own_measure"}), tmp_path / "plain")
    assert table["own/x"].tolist() == plain["own/x"].tolist()


class OwnMeasure(Measure):
    """A measure that states its facts as its field says."""

    wrong: str

    @property
    def needs(self) -> Any:
        """Return names, or a text in place of a tuple of them."""
        return "edges" if self.wrong == "needs" else ("edges",)

    @property
    def columns(self) -> Any:
        """Return labels, texts in their place, or nothing."""
        if self.wrong == "raises":
            raise LookupError("no columns")
        return ["own/x"] if self.wrong == "columns" else (Column("own/x", "X"),)

    def seconds(self, probes: Any) -> Any:
        """Return a number, or a text."""
        return "long" if self.wrong == "seconds" else 0.0

    def take(self, probe: Probe) -> Any:
        """Return the sum of squared weights."""
        return {"own/x": _squares(probe)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("needs", r"OwnMeasure.needs is 'edges'. Return a tuple of names from edges, layers"),
        ("columns", r"OwnMeasure.columns is \['own/x'\]. Return a tuple of modulab.metrics.measure.Column"),
        ("seconds", r"OwnMeasure.seconds returned 'long'. Return a number of seconds"),
        ("raises", r"OwnMeasure failed with LookupError: no columns while it stated"),
    ],
)
def test_a_measure_that_states_wrong_facts_is_refused_before_training(
    wrong: str, message: str, tmp_path: Path
) -> None:
    measures = {"own": {"_target_": f"{HERE}.OwnMeasure", "wrong": wrong}}
    with pytest.raises(ConfigError, match=message):
        trained(configs(probes__measures=measures), tmp_path)


class OwnTask(RegressionTask):
    """A task that returns what its field says in place of its points."""

    wrong: str = ""

    def draw(self, keys: Any, counters: Any, region: Any, split: Any, scales: Any = None) -> Any:
        """Return points."""
        samples = super().draw(keys, counters, region, split, scales)
        inputs, targets = samples.inputs, samples.targets
        if self.wrong in DRAWS:
            return Samples(inputs, targets + DRAWS[self.wrong]())
        return {
            "tuple": lambda: (inputs, targets),
            "wide": lambda: Samples(inputs, targets.repeat(1, 1, 2)),
            "inputs": lambda: Samples(inputs[..., :1], targets),
            "later": lambda: Samples(inputs, targets[..., : 1 if split == "test" else 2]),
            "double": lambda: Samples(inputs.double(), targets.double()),
            "": lambda: samples,
        }[self.wrong]()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("tuple", "OwnTask.draw: it is of type tuple. Return modulab.tasks.base.Samples(inputs, targets)."),
        ("wide", "OwnTask.draw: targets is of type Tensor, shape (1, 16, 4)."),
        ("inputs", "OwnTask.draw: inputs is of type Tensor, shape (1, 16, 1)."),
        ("later", "OwnTask.draw: targets is of type Tensor, shape (2, 64, 1)."),
        ("torch", "a draw by tests.test_foreign.OwnTask from the global random generator of torch. Results would"),
    ],
)  # fmt: skip
def test_a_task_with_a_wrong_result_fails_its_own_members_only(
    wrong: str, message: str, tmp_path: Path
) -> None:
    members = configs(task___target_=f"{HERE}.OwnTask")
    members[1]["task"]["wrong"] = wrong
    table = trained(members, tmp_path)
    assert table["status"].tolist() == ["completed", "failed", "completed"]
    assert message in table.loc[1, "error"]
    assert table.loc[[0, 2], "error/test"].notna().all()


def test_a_task_may_return_numbers_of_double_precision(plain: pd.DataFrame, tmp_path: Path) -> None:
    members = configs(task___target_=f"{HERE}.OwnTask")
    members[0]["task"]["wrong"] = "double"
    table = trained(members, tmp_path)
    assert table["error/test"].tolist() == plain["error/test"].tolist()


def _norms(run: Any) -> torch.Tensor:
    return sum(edges.weights.square().sum(dim=(1, 2)) for edges in run.edges())


class OwnPenalty(Regulariser):
    """A penalty, right or wrong."""

    name: str = "own"
    wrong: str = ""

    @property
    def variant(self) -> str:
        """Return what `penalty` does."""
        return self.wrong

    @staticmethod
    def penalty(run: Any, coefficients: Any, variant: str) -> Any:
        """Return the sum of squared weights, right or wrong."""
        norms = _norms(run)
        return {
            "": lambda: norms,
            "sum": norms.sum,
            "column": lambda: norms[:, None],
            "mean": lambda: norms - 0.5 * norms.mean(),
            "draws": lambda: norms * torch.rand(()),
            "late": lambda: norms * (DRAWS["numpy"]() if int(run.step) >= 3 else 1.0),
            "number": lambda: 1.0,
        }[variant]()


class OwnMoves(OwnPenalty):
    """A penalty that rearranges units, into something else than it must."""

    @staticmethod
    def rearranged(network: Any, parameters: Any, coefficients: Any, step: int) -> Any:
        """Return too few parameters."""
        return Rearrangement(parameters[:1]) if step == 3 else parameters


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("sum", "OwnPenalty.penalty: it is of type Tensor, shape ()."),
        ("column", "OwnPenalty.penalty: it is of type Tensor, shape (3, 1)."),
        ("number", "OwnPenalty.penalty: it is of type float."),
        ("mean", "OwnPenalty: the loss of a network depends on the other networks of its block."),
        ("draws", "a draw by tests.test_foreign.OwnPenalty from the global random generator of torch."),
        ("late", "a draw by tests.test_foreign.OwnPenalty from the global random generator of numpy."),
    ],
)  # fmt: skip
def test_a_penalty_with_a_wrong_result_fails_its_own_members_only(
    wrong: str, message: str, tmp_path: Path
) -> None:
    members = configs()
    own = {"_target_": f"{HERE}.OwnPenalty", "strength": 0.01}
    for member, kind in zip(members, ("", wrong, ""), strict=True):
        member["regulariser"] = own | {"wrong": kind}
    table = trained(members, tmp_path)
    assert table["status"].tolist() == ["completed", "failed", "completed"]
    assert message in table.loc[1, "error"]


def test_a_penalty_of_ones_own_trains_as_the_shipped_one_of_the_same_formula(tmp_path: Path) -> None:
    members = configs()
    for member in members:
        member["regulariser"] = {"_target_": f"{HERE}.OwnPenalty", "strength": 0.01}
    table = trained(members, tmp_path)
    plain = {"name": "weights", "strength": 0.01, "weight_power": 2.0, "activity_power": 0.0, "sites": None}
    same = configs()
    for member in same:
        member["regulariser"] = {"_target_": f"{PowerRegulariser.__module__}.PowerRegulariser", **plain}
    expected = trained(same, tmp_path / "plain")
    assert table["error/test"].tolist() == pytest.approx(expected["error/test"].tolist())


def test_units_rearranged_into_something_else_fail_their_members(tmp_path: Path) -> None:
    own = {"_target_": f"{HERE}.OwnMoves", "strength": 0.01, "wrong": ""}
    members = configs(range(2))
    for member in members:
        member["regulariser"] = own
    table = trained(members, tmp_path)
    assert table["status"].tolist() == ["failed", "failed"]
    assert "OwnMoves.rearranged: parameters is of type Tensor, shape (1," in table.loc[0, "error"]


@dataclass(frozen=True)
class OwnLoss(SquaredLoss):
    """A loss with one value for all networks."""

    def total(self, outputs: Any, targets: Any, partition: Any) -> Any:
        """Return the mean over everything."""
        return super().total(outputs, targets, partition).mean()


class TaskOfOwnLoss(RegressionTask):
    """A task with this loss."""

    @property
    def loss(self) -> OwnLoss:
        """Return it."""
        return OwnLoss()


@dataclass(frozen=True)
class OwnNetwork(Perceptron):
    """A perceptron with something wrong."""

    wrong: str = ""

    def forward(self, parameters: Any, inputs: Any, tap: Any = None) -> Any:
        """Return outputs, or those of the first module alone."""
        outputs = super().forward(parameters, inputs, tap)
        return outputs[:, :, :1] if self.wrong == "outputs" else outputs

    def initialise(self, architectures: Any, partition: Any, keys: Any) -> Any:
        """Return parameters, or those of one network."""
        mask, parameters = super().initialise(architectures, partition, keys)
        if self.wrong == "initial":
            return mask, parameters[0]
        return mask, torch.randn_like(parameters) if self.wrong == "random initial" else parameters


def _own(wrong: str) -> Callable[[Any, Any], Any]:
    def network(self: Any, task: Any) -> Any:
        return (
            None if wrong == "none" else OwnNetwork(task.in_features, (4,), task.out_features, "relu", wrong)
        )

    return network


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("outputs", "OwnNetwork.forward: it is of type Tensor, shape (3, 8, 1)."),
        ("initial", "OwnNetwork.initialise: parameters is of type Tensor, shape (22,)."),
        ("random initial", "a draw by tests.test_foreign.OwnNetwork from the global random generator of torch."),
        ("loss", "OwnLoss.total: it is of type Tensor, shape ()."),
    ],
)  # fmt: skip
def test_a_network_or_a_loss_with_a_wrong_result_says_so(
    wrong: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wrong == "loss":
        members = configs(task___target_=f"{HERE}.TaskOfOwnLoss")
    else:
        members = configs()
        kind = type(read_run(members[0]).member.architecture)
        monkeypatch.setattr(kind, "network", _own(wrong))
    table = trained(members, tmp_path)
    assert table["status"].tolist() == ["failed"] * 3
    assert message in table.loc[0, "error"]


class RandomTask(RegressionTask):
    """A task that draws a number in its constructor."""

    def model_post_init(self, context: Any) -> None:
        """Draw from torch's global generator."""
        torch.rand(())


def test_settings_that_draw_while_they_are_read_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"task: .*RandomTask failed with a draw by .*RandomTask from the global"
    ):
        read_run(member_config(task___target_=f"{HERE}.RandomTask"))


def test_streams_are_the_way_to_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def share(probe: Probe) -> dict[str, torch.Tensor]:
        keys = fold_in(probe.keys, Stream.ABLATION)
        return {"own/share": bernoullis(keys, torch.full((len(keys),), 0.5), 4, 4).float().mean(dim=(1, 2))}

    monkeypatch.setattr(f"{HERE}.CHOSEN", [share])
    measures = {"own": f"{HERE}.own_measure"}
    together = trained(configs(probes__measures=measures), tmp_path)
    alone = trained(configs(range(1, 2), probes__measures=measures), tmp_path / "alone")
    assert together.loc[1, "own/share"] == alone.loc[1, "own/share"]
