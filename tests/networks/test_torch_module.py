"""Any torch module as a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import modulab
from modulab.config.settings import Member, read_run
from modulab.errors import ConfigError, ForeignError
from modulab.networks.torch_module import TorchArchitecture
from modulab.progress import ProgressReport
from modulab.training.execution import Execution
from modulab.training.fit import fit_population
from modulab.training.learner import initialise
from modulab.training.program import network_of, program_of
from modulab.training.step_code import is_own
from tests.command_line import SMALL, Command
from tests.members import member_config
from tests.networks.kinds import check_compiled, check_measures, check_packing, check_taps
from tests.networks.modules import Channels, Plain, Rich
from tests.training.fitting import train_learner, trained_parameters
from tests.training.plain_torch import check_follows_plain_torch

SITES = {"Plain": ["hidden"], "Rich": ["active"], "Channels": ["active"]}
OTHER_SITES = {"Settled": ["hidden"]}


QUICK = [word for word in SMALL if not word.startswith("architecture.")]


def make(kind: str, seed: int = 0, choices: dict[str, str] | None = None, **overrides: Any) -> Member:
    quick = {
        "training__steps": 4, "training__batch_size": 8, "training__learning_rate": 0.01,
        "probes__num_samples": 32, "probes__repeats": 2,
        "probes__adaptation_steps": 2,
    }  # fmt: skip
    config = member_config({"architecture": "torch"} | (choices or {}), seed=seed, **(quick | overrides))
    architecture = config["architecture"]
    architecture["module"] = {"_target_": f"tests.networks.modules.{kind}"} | (architecture["module"] or {})
    architecture["sites"] = architecture["sites"] or (SITES | OTHER_SITES).get(kind, [])
    return read_run(config).member


@pytest.mark.parametrize("kind", ["Plain", "Rich", "Settled"])
def test_members_of_a_module_train_alike_alone_and_in_company(kind: str) -> None:
    noisy = {"noise": "poisson"}
    check_packing([make(kind, seed, noisy, noise__scale=0.1 * seed) for seed in range(4)])


# Shrinking would train hundreds of populations.
@settings(max_examples=5, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    kind=st.sampled_from(["Plain", "Rich"]),
    scales=st.lists(st.floats(0, 1), min_size=2, max_size=5),
    batch=st.integers(2, 17),
    law=st.sampled_from(["gaussian", "multiplicative", "dropout"]),
)
def test_company_changes_nothing(kind: str, scales: list[float], batch: int, law: str) -> None:
    check_packing(
        [
            make(
                kind, seed, {"noise": law}, noise__scale=scale, training__batch_size=batch, training__steps=2
            )
            for seed, scale in enumerate(scales)
        ]
    )


@pytest.mark.slow
def test_torchs_convolutions_round_by_the_number_of_members_and_no_more() -> None:
    """Vectorised over members they become one convolution of as many groups, for which oneDNN has other kernels."""
    noisy = {"noise": "poisson"}
    members = [make("Channels", seed, noisy, noise__scale=0.2, training__steps=100) for seed in range(3)]
    packed = trained_parameters(members)
    for place, member in enumerate(members):
        torch.testing.assert_close(trained_parameters([member])[0], packed[place], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [Plain, pytest.param(Channels, marks=pytest.mark.slow)])
def test_a_module_trains_as_in_a_plain_torch_loop(kind: type[nn.Module]) -> None:
    member = make(kind.__name__, training__steps=100, training__batch_size=32)
    task = member.task
    check_follows_plain_torch(member, kind(task.in_features, task.out_features))  # pyright: ignore[reportCallIssue]


def test_initial_parameters_are_what_the_constructor_makes_of_a_seed_and_the_process_keeps_its_own() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    members = [make("Rich", seed) for seed in (0, 1, 0)]
    network = network_of(members[0])
    mask, parameters = initialise(members, network)
    assert torch.equal(parameters[0], parameters[2])
    parts = network.split(parameters)
    for name in ("projection", "again.weight", "frozen"):
        assert not torch.equal(parts[name][0], parts[name][1])
    assert parts["again.weight"].abs().max() <= 6**-0.5
    untrained = {part.name for part in network.layout if not part.trained}
    assert untrained == {"projection", "frozen"}
    assert {name for name, part in network.split(mask).items() if not part.any()} == untrained
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


def test_what_a_module_keeps_fixed_stays_and_tied_weights_are_one() -> None:
    members = [
        make("Rich", seed, training__optimiser="adamw", training__weight_decay=0.1) for seed in range(2)
    ]
    network = network_of(members[0])
    assert "tied.weight" not in {part.name for part in network.layout}
    before = network.split(initialise(members, network)[1])
    after = network.split(trained_parameters(members))
    for name in before:
        fixed = name in ("projection", "frozen")
        assert torch.equal(before[name], after[name]) == fixed, name


def test_infinite_buffers_are_no_divergence_and_recordings_are_not_changed_in_place() -> None:
    member = make("Masked", architecture__sites=["hidden"])
    learner = train_learner([member, make("Masked", 1, architecture__sites=["hidden"])])
    assert learner.member_divergence().tolist() == [-1, -1]
    network, parameters = learner.network, learner.member_parameters()
    assert not parameters.isfinite().all()
    recording = network.record(parameters, torch.rand(2, 50, network.in_features))
    assert (recording.values["hidden"] < 0).any()


def test_a_module_without_sites_has_no_robustness_to_noise_on_units() -> None:
    member = make("Plain", architecture__sites=[])
    config = member.architecture.model_copy(update={"sites": []})
    found, skipped = check_measures(member.model_copy(update={"architecture": config}))
    assert {"poisson", "ablation", "activity"} <= set(skipped)
    assert any(name.startswith("error_under/weight_noise@") for name in found)
    assert not any("poisson" in name for name in found)


def test_one_pass_of_many_members_is_each_ones_own_module() -> None:
    members = [make("Rich", seed) for seed in range(3)]
    network = network_of(members[0])
    parameters = initialise(members, network)[1]
    inputs = torch.rand(3, 5, network.in_features)
    outputs = network.forward(parameters, inputs)
    for place in range(3):
        module = Rich(network.in_features, network.out_features)
        own = {name: part[place] for name, part in network.split(parameters).items()}
        own["tied.weight"] = own["again.weight"]
        module.load_state_dict(own | {"places": torch.arange(6)})
        torch.testing.assert_close(outputs[place], module(inputs[place]))


@pytest.mark.parametrize("kind", SITES)
def test_taps_see_units_of_all_members_at_each_call_of_a_site(kind: str) -> None:
    member = make(kind)
    check_taps(member)
    [site] = network_of(member).sites
    assert (site.units, site.positions, site.visits) == {
        "Plain": (6, 1, 1), "Rich": (6, 1, 2), "Channels": (3, member.task.in_features, 1),
    }[kind]  # fmt: skip


def test_derivatives_through_a_tap_are_those_of_the_noise_too() -> None:
    member = make("Plain")
    network = network_of(member)
    parameters = initialise([member, member], network)[1].requires_grad_()
    inputs = torch.rand(2, 5, network.in_features)

    def tap(place: str, values: Tensor) -> Tensor:
        return values + values.square()

    network.forward(parameters, inputs, tap).sum().backward()
    module = Plain(network.in_features, network.out_features)
    parts = {name: part[0].detach() for name, part in network.split(parameters).items()}
    module.load_state_dict(parts)
    hidden = module.hidden(module.read(inputs[0])) + module.hidden(module.read(inputs[0])).square()
    module.write(hidden).sum().backward()
    assert parameters.grad is not None
    own = torch.cat([value.grad.flatten() for value in module.parameters() if value.grad is not None])
    torch.testing.assert_close(parameters.grad[0], own)


@pytest.mark.parametrize("kind", SITES)
def test_measures_that_need_sites_apply_and_those_that_need_layers_say_why_not(kind: str) -> None:
    measures = member_config()["probes"]["measures"] | {
        "forgetting": "modulab.metrics.forgetting.measure_forgetting"
    }
    found, skipped = check_measures(make(kind, probes__measures=measures))
    assert {"modularity/functional", "modularity/ablation", "forgetting/others_rise"} <= set(found)
    assert any(name.startswith("error_under/poisson@") for name in found)
    assert {"structural", "unit_specialisation"} <= set(skipped)


def test_stated_edges_give_weight_penalties() -> None:
    edges = [["read.weight", "input", "hidden"], ["write.weight", "hidden", "output"]]
    settings = {"architecture__edges": edges, "regulariser__strength": 0.1, "training__steps": 30}
    penalised = make("Plain", 0, {"regulariser": "l1"}, **settings)
    network = network_of(penalised)
    assert [each.weights.shape[1:] for each in network.edges(initialise([penalised], network)[1])] == [
        (6, network.in_features),
        (network.out_features, 6),
    ]
    with_penalty, without = (
        network.split(trained_parameters([member]))["read.weight"].abs().sum()
        for member in (penalised, make("Plain", 0, training__steps=30))
    )
    assert with_penalty < 0.9 * without


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("Dropped", {}, "Dropped draws random numbers when it is called"),
        ("DroppedInLargeBatches", {"training__batch_size": 8}, "draws random numbers .* called with 8 samples"),
        (
            "DroppedInLargeBatches",
            {"training__batch_size": 2, "probes__num_samples": 16},
            "draws random numbers .* called with 16 samples",
        ),
        ("DrawnInLargeBatches", {}, r"returns different outputs when it is called again with the same \d+ inputs"),
        ("Remembering", {}, r"changes its parameter or buffer 'norm\.running_mean'"),
        ("DrawnInAList", {}, "holds something that its constructor drew"),
        ("InAList", {}, "holds something that its constructor drew, or a parameter, where"),
        ("Unseeded", {}, "has other initial values when it is built again from the same seed"),
        ("Ageing", {}, "returns different outputs when it is called again"),
        ("Normalised", {}, "returns different outputs for a sample if other samples of its batch are missing"),
        ("Branching", {}, "Branching cannot be called for several networks at once .*architecture=lightning"),
        ("Gated", {}, r"Gated cannot be called for several networks at once .*aten::gru"),
        ("Complex", {}, "Complex returns numbers of type torch.complex64"),
        ("Transposed", {}, r"the parameters 'back' and 'write\.weight' share memory"),
        ("Double", {}, r"'scale' is of type torch\.float64"),
        ("Lazy", {}, r"'write\.weight' has no shape before the module is called"),
        ("Narrow", {}, r"Narrow returns shape \(3, 1\) for inputs of shape \(3, 2\), and the task needs \(3, 2\)"),
        ("Plain", {"architecture__sites": ["hiden"]}, "no submodule 'hiden'. Did you mean 'hidden'"),
        ("Plain", {"architecture__unit_axis": 2}, "architecture.unit_axis=2 is not an axis of units"),
        ("Plain", {"architecture__module": {"width": 5, "depth": 2}}, r"architecture\.module\.depth: the constructor"),
        ("Plain", {"architecture__edges": {"read.weight": ["hidden", "output"]}}, r"\(6, 2\) is not \(2, 6\)"),
        ("Plain", {"architecture__edges": {"read.wight": ["input", "hidden"]}}, "Did you mean 'read.weight'"),
        ("Plain", {"architecture__edges": {"read.weight": ["input"]}}, "needs two: the site that it leads from"),
        ("Plain", {"architecture__edges": ["read.weight"]}, r"architecture\.edges.*should be a list of lists"),
        ("Plain", {"architecture__edges": 2 * [["read.weight", "input", "hidden"]]}, "names a weight twice"),
        ("Plain", {"architecture__edges": [["read.weight", "input"]]}, r"as in \[read\.weight, input, hidden\]"),
        ("Plain", {"architecture__edges": {"read.weight": ["input", "there"]}}, "neither a site nor input or output"),
    ],
)  # fmt: skip
def test_modules_that_cannot_be_packed_or_used_are_refused_with_the_reason(
    kind: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(kind, **overrides)


@pytest.mark.parametrize(
    ("choices", "settings", "message"),
    [
        (
            {"regulariser": "l1"},
            {},
            r"regulariser\.strength=.*lacks weighted connections from hidden units that it states as edges",
        ),
        ({"noise": "poisson"}, {"noise__scale": 0.2}, r"noise\.scale=0\.2 has no effect"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    choices: dict[str, str], settings: dict[str, Any], message: str
) -> None:
    config = member_config({"architecture": "torch"} | choices, **settings)
    with pytest.raises(ConfigError, match=message):
        read_run(config)


def test_other_code_than_a_module_is_refused() -> None:
    config = member_config({"architecture": "torch"}, architecture__module={"_target_": "math.sqrt"})
    with pytest.raises(
        ConfigError, match=r"architecture\.module\._target_=math\.sqrt is not a class derived from torch"
    ):
        read_run(config)


def test_a_users_module_is_traced_anew_and_torchs_own_is_kept() -> None:
    assert not is_own(program_of(make("Plain")))
    assert is_own(program_of(read_run(member_config({"architecture": "torch"})).member))


@pytest.mark.slow
def test_commands_go_all_the_way_with_a_module_of_ones_own_and_name_what_breaks_later(
    tmp_path: Any, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path / "run")
    own = ["architecture=torch", "architecture.module={_target_: tests.networks.modules.Plain, width: 5}"]
    grid = "population.grid={noise.scale: [0, 0.2], architecture.module.width: [5, 6]}"
    code, out, errors = command(
        "train", *QUICK, *own, "architecture.sites=[hidden]", "noise=poisson", grid, f"hydra.run.dir={folder}",
        "architecture.edges=[[write.weight, hidden, output]]", "regulariser=l2", "regulariser.strength=0.01",
    )  # fmt: skip
    assert code == 0, out + errors
    results = modulab.load_results(folder)
    assert (results["status"] == "completed").all()
    assert len(results) == 4 * results["config.seed"].nunique()
    assert results["modularity/functional"].notna().all()
    assert set(modulab.load_members(folder)[0].weights) == {
        "read.weight", "read.bias", "write.weight", "write.bias",
    }  # fmt: skip
    code, out, errors = command("rerun", folder, "--member", "0")
    assert code == 2
    assert "--import tests.networks.modules" in errors
    code, out, errors = command("rerun", folder, "--member", "0", "--import", "tests.networks.modules")
    assert code == 0, out + errors
    code, out, errors = command("report", folder, "--import", "tests.networks.modules")
    assert code == 0, out + errors

    def broken(architecture: TorchArchitecture, task: Any) -> Any:
        raise RuntimeError("broken since")

    monkeypatch.setattr(TorchArchitecture, "network", broken)
    for words, expected, said in (
        (["report"], 0, "is left out: RuntimeError: broken since"),
        (["rerun", "--member", "0"], 2, "training it again failed: RuntimeError: broken since"),
        (["analyse", "--with", "cut"], 1, "4 failed: RuntimeError: broken since"),
    ):
        code, out, errors = command(words[0], folder, *words[1:], "--import", "tests.networks.modules")
        assert (code, said in errors, "Traceback" in errors) == (expected, True, False), (words, out + errors)


def test_a_module_that_fails_fails_its_own_members_only(tmp_path: Any, command: Command) -> None:
    folder = str(tmp_path / "run")
    own = "architecture.module={_target_: tests.networks.modules.Failing, fails: false}"
    grid = "population.grid=[{architecture.module.fails: [true, false]}]"
    code, _, errors = command("train", *QUICK, "architecture=torch", own, grid, f"hydra.run.dir={folder}")
    assert code == 1, errors
    results = modulab.load_results(folder)
    failed = results[results["config.architecture.module.fails"]]
    assert (failed["error"] == "LookupError: no such feature").all()
    assert (results.drop(failed.index)["status"] == "completed").all()
    own = "architecture.module={_target_: tests.networks.modules.Unbuildable, width: 5}"
    grid = "population.grid={architecture.module.width: [5, 7]}"
    code, out, errors = command("train", *QUICK, "architecture=torch", own, grid, "sweep.dry_run=true")
    assert code == 0, errors
    assert "failing      1, whose code fails before any training" in out
    code, _, errors = command("train", *QUICK, "architecture=torch", own, grid, f"hydra.run.dir={folder}2")
    assert code == 1, errors
    results = modulab.load_results(f"{folder}2").set_index("config.architecture.module.width")
    assert results.loc[7, "error"] == "ArithmeticError: seven is not allowed"
    assert results.loc[5, "status"] == "completed"


@pytest.mark.slow
def test_compiled_steps_of_a_module_agree_with_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        make("Plain", seed, {"noise": "poisson"}, noise__scale=0.1, training__steps=20) for seed in range(3)
    ]
    check_compiled(members, monkeypatch)


def test_a_module_that_torch_cannot_trace_for_any_number_of_members_is_trained_eagerly_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    execution = Execution("compiled", torch.device("cpu"), asked_threads=1)
    progress = ProgressReport("off", 2, 8)
    members = [make("Rich", seed) for seed in range(2)]
    with pytest.raises(ForeignError, match=r"its step cannot be compiled .*Use trainer\.engine=eager"):
        fit_population(members, execution, None, progress)
    result = fit_population(members, replace(execution, engine_may_change=True), None, progress)
    assert set(result.engines) == {"eager"}
    assert "training with the eager engine" in capsys.readouterr().err
