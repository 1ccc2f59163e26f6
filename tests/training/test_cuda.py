"""On a CUDA device members are drawn, trained and measured as on the CPU, to rounding."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from modulab.config.settings import Member
from modulab.errors import ForeignError
from modulab.regularisers import Regulariser
from modulab.streams import integers, member_keys, normals, random_bits
from modulab.text import say_once
from modulab.training.cuda_graph import STEPS_OF_A_GRAPH
from modulab.training.engine import Engine, graphed_steps, step_function
from modulab.training.program import program_of
from tests.command_line import SMALL, Command, interrupted_after_a_checkpoint
from tests.members import make_member
from tests.training.cases import CASES, SLOW, members, varied
from tests.training.fitting import prepared_learner, train_learner, trained_parameters

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


def apart(population: list[Member], engine: Engine) -> float:
    """Return how far CPU and CUDA train networks apart, as a share of the way that they come."""
    on_cpu, on_cuda = trained_parameters(population), trained_parameters(population, engine, device=CUDA)
    start = prepared_learner(population)[0].member_parameters()
    finite = torch.isfinite(start)  # masks of attention are infinite
    return float((on_cuda - on_cpu)[finite].abs().max() / (on_cpu - start)[finite].abs().max())


def test_streams_are_those_of_the_cpu() -> None:
    seeds = [0, 1, 2**31, 2**40 + 5]
    on_cpu, on_cuda = member_keys(seeds), member_keys(seeds, CUDA)
    counters = torch.arange(1000, dtype=torch.int32).view(1, -1)
    most = torch.tensor([1, 7, 4096, 2**30], dtype=torch.int32)
    assert torch.equal(random_bits(on_cuda, counters.to(CUDA)).cpu(), random_bits(on_cpu, counters))
    drawn = integers(on_cuda, counters.to(CUDA), most.to(CUDA)).cpu()
    assert torch.equal(drawn, integers(on_cpu, counters, most))
    torch.testing.assert_close(normals(on_cuda, 30, 40).cpu(), normals(on_cpu, 30, 40), rtol=1e-5, atol=1e-6)


PLAIN_TENSORS = "torch module with constants"


def test_modules_whose_constants_are_plain_tensors_fail_as_torch_says() -> None:
    # Only parameters and buffers are taken to another device, as `Module.to` does.
    choices, overrides = (CASES | SLOW)[PLAIN_TENSORS]
    with pytest.raises(ForeignError, match="on the same device"):
        trained_parameters(members(3, choices, **overrides), device=CUDA)


@pytest.mark.parametrize("case", [case for case in (*CASES, *SLOW) if case != PLAIN_TENSORS])
def test_training_agrees_with_the_cpu_to_rounding(case: str) -> None:
    choices, overrides = (CASES | SLOW)[case]
    assert apart(members(3, choices, **overrides), "eager") < 1e-4


def test_float64_agrees_with_the_cpu_beyond_the_digits_of_float32() -> None:
    # Without noise, which is drawn in float32 in any precision: devices round its logarithms and cosines differently.
    population = members(3, {}, training__precision="float64", architecture__activation="tanh")
    assert apart(population, "eager") < 1e-10


@pytest.mark.parametrize("left", [1, 3])
def test_networks_that_stop_keep_their_weights_and_others_go_on_as_on_the_cpu(left: int) -> None:
    population = varied(4, curve_every=20)
    ended = []
    for device in (torch.device("cpu"), CUDA):
        learner, data = prepared_learner(population, device=device)
        learner.training_step(data.chunk(0))
        stopped = learner.member_parameters()[left:]
        learner.go_on_with([*population[:left], *[None] * (4 - left)])
        learner.training_step(data.chunk(1))
        ended.append(learner.member_parameters())
        assert torch.equal(ended[-1][left:], stopped)
    torch.testing.assert_close(ended[1], ended[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", ["poisson relu adamw", "gaussian tanh deep premodular power", "recurrent"])
def test_compiled_training_agrees_with_the_cpu_to_rounding(case: str) -> None:
    # In a process without checks of shapes, which torch.compile cannot trace.
    program = (
        "from tests.training.test_cuda import CASES, SLOW, apart, members\n"
        f"choices, overrides = (CASES | SLOW)[{case!r}]\n"
        "print(apart(members(3, choices, **overrides), 'compiled'))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout.split()[-1]) < 1e-4


def test_company_leaves_what_a_member_learns_to_rounding() -> None:
    packed = trained_parameters(varied(), device=CUDA)
    for index in (0, 4, 8):
        alone = trained_parameters([varied()[index]], device=CUDA)[0]
        torch.testing.assert_close(alone, packed[index], rtol=1e-4, atol=1e-5)


def test_chunks_and_graphs_leave_the_bits() -> None:
    whole = trained_parameters(varied(curve_every=60), device=CUDA)
    assert STEPS_OF_A_GRAPH < 60
    assert torch.equal(trained_parameters(varied(curve_every=7), device=CUDA), whole)


def test_training_that_is_resumed_gives_the_same_bits() -> None:
    whole = train_learner(varied(), device=CUDA)
    begun, data = prepared_learner(varied(), device=CUDA)
    begun.training_step(data.chunk(0))
    resumed, data = prepared_learner(varied(), device=CUDA)
    resumed.load_state_dict(begun.state_dict())
    resumed.training_step(data.chunk(1))
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_member_that_diverges_is_found_at_its_step() -> None:
    broken = make_member(
        {"noise": "gaussian"}, seed=3, noise__scale=0.1, architecture__width=9, training__steps=60,
        training__batch_size=20, training__curve_every=30, training__learning_rate=1e30,
    )  # fmt: skip
    on_cpu, on_cuda = (
        train_learner([*varied(3), broken], device=device) for device in (torch.device("cpu"), CUDA)
    )
    assert on_cuda.member_divergence()[3] >= 0
    assert torch.equal(on_cuda.member_divergence(), on_cpu.member_divergence())


def test_a_step_that_cannot_be_captured_is_launched_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    def reads_a_value(run: Any, coefficients: Any, variant: Any) -> torch.Tensor:
        squares = run.parameters.square().mean(1)
        return squares if run.parameters.detach().sum().item() > 1e9 else 2 * squares

    def doubled(run: Any, coefficients: Any, variant: Any) -> torch.Tensor:
        return 2 * run.parameters.square().mean(1)

    found: list[torch.Tensor] = []
    population = varied(3)
    for penalty in (reads_a_value, doubled):
        foreign = type(
            "Foreign", (Regulariser,), {"penalty": staticmethod(penalty), "__module__": "elsewhere"}
        )
        program = replace(program_of(population[0]), regulariser=foreign)
        names = (*program.coefficient_names, "regulariser.strength")
        learner, data = prepared_learner(population, device=CUDA)
        [block] = learner.blocks
        strength = torch.full_like(block.coefficients[:1], 0.1)
        block = replace(block, coefficients=torch.cat([block.coefficients, strength]))
        program = replace(program, coefficient_names=names)
        say_once.cache_clear()
        steps = graphed_steps(
            step_function("eager", program, CUDA), program, block, population, data.chunk(0).table
        )
        found.append(steps.run(0, 30))
        assert ("launched one by one" in capsys.readouterr().err) == (penalty is reads_a_value)
    assert torch.equal(*found)


def test_a_sweep_is_trained_measured_and_resumed(command: Command, tmp_path: Any) -> None:
    words = [word for word in SMALL if not word.startswith("trainer.accelerator")]
    words += ["trainer.accelerator=cuda", "noise=poisson", "noise.scale=0.1,0.3", "population.seeds=3"]
    code, _, err = command("train", "-m", *words, "hydra.sweep.dir=sweep")
    assert code == 0, err
    rows = pd.read_parquet(next((tmp_path / "sweep").glob("**/results.parquet")))
    assert len(rows) == 6
    assert set(rows["device"]) == {torch.cuda.get_device_name()}
    on_cpu = [word.replace("cuda", "cpu") for word in words]
    code, _, err = command("train", "-m", *on_cpu, "hydra.sweep.dir=other")
    others = pd.read_parquet(next((tmp_path / "other").glob("**/results.parquet")))
    both = rows.set_index("run_id").join(others.set_index("run_id"), rsuffix=".cpu")
    for name in ("error/test", "modularity/structural"):
        pd.testing.assert_series_equal(both[name], both[f"{name}.cpu"], check_names=False, rtol=1e-3)


def test_ctrl_c_leaves_a_sweep_that_goes_on(command: Command, tmp_path: Any) -> None:
    words = [word for word in SMALL if not word.startswith(("trainer.accelerator", "training.steps"))]
    words += [
        "trainer.accelerator=cuda",
        "trainer.checkpoint_seconds=0",
        "training.steps=600",
        "hydra.run.dir=run",
    ]
    interrupted_after_a_checkpoint(["train", *words], tmp_path, "run")
    code, _, err = command("train", *words)
    assert code == 0, err
    first = re.search(r"training, (\d+)% of the work", err)
    assert first is not None
    assert int(first[1]) > 0
