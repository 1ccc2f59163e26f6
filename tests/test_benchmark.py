"""The benchmark: every contender is there, and each does the whole of the work."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from modulab.training.measuring import measure_each

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
RECORDS = SCRIPTS.parent / "docs" / "benchmarks"
COMPILING = {"modulab", "modulab_native", "vmap_compiled"}
JAX = {"jax", "jax_blocked"}
PLAIN = {"modulab_eager", "lightning", "lightning_tuned", "torch_loop", "vmap"}


@pytest.fixture(scope="module")
def quick_benchmark(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    output = tmp_path_factory.mktemp("benchmark") / "new" / "benchmark.json"
    finished = subprocess.run(
        [str(SCRIPTS / "benchmark"), "--quick", "--output", str(output)],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout, json.loads(output.read_text())


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


@pytest.mark.slow
def test_quick_benchmark_reports_every_contender_or_why_not(
    quick_benchmark: tuple[str, dict[str, Any]],
) -> None:
    printed, content = quick_benchmark
    status = {record["contender"]: record["status"] for record in content["results"]}
    assert set(status) == PLAIN | COMPILING | JAX
    ran = PLAIN | (JAX if importlib.util.find_spec("jax") else set())
    assert {name for name, word in status.items() if word == "ok"} == ran
    for record in content["results"]:
        assert record["title"] in printed
        if record["status"] == "ok":
            assert record["us_per_network_step"] > 0
        else:
            assert record["status"] == "skipped"
            assert record["reason"] in printed.replace("\n", " ")
    fastest = min(r["us_per_network_step"] for r in content["results"] if r["contender"] == "modulab_eager")
    for record in content["results"]:
        if record["status"] == "ok":
            assert record["ratio"] == pytest.approx(record["us_per_network_step"] / fastest)


@pytest.mark.slow
def test_contenders_reach_the_same_loss(quick_benchmark: tuple[str, dict[str, Any]]) -> None:
    for record in quick_benchmark[1]["results"]:
        if record["status"] == "ok":
            # 100 steps take a mean squared error of about 0.45 to about 0.13, whatever trains.
            assert 0.3 < record["first_loss"] < 0.7, record
            assert 0.07 < record["last_loss"] < 0.25, record


@pytest.mark.slow
def test_benchmark_prints_memory_of_an_extra_member(quick_benchmark: tuple[str, dict[str, Any]]) -> None:
    printed, content = quick_benchmark
    # A member's points alone take 4,096 * 4 * 4 bytes = 64 KiB.
    assert content["memory"]["kib_per_extra_member"] > 64
    assert f"{content['memory']['kib_per_extra_member']:.0f} KiB an extra member" in printed


def test_torch_contenders_follow_the_noise_law_and_its_zero_gradient(contenders: Any) -> None:
    plain = contenders("benchmark_contenders.plain_torch")
    torch.manual_seed(0)
    network = plain.NoisyPerceptron(noise=True)
    inputs = torch.rand(256, 2) * 2 - 1
    draws = torch.randn(256, 48)
    with torch.no_grad():
        network.first.bias[:24] = -10.0  # half of the units are silent on every input
    network(inputs, 0.2, draws).square().mean().backward()
    found = [parameter.grad.clone() for parameter in network.parameters()]

    network.zero_grad()
    activity = torch.relu(network.first(inputs))
    active = activity > 0
    deviation = torch.where(active, torch.sqrt(torch.where(active, activity, 1.0)), 0.0)
    network.readout(activity + 0.2 * deviation * draws).square().mean().backward()
    for gradient, parameter in zip(found, network.parameters(), strict=True):
        assert torch.isfinite(gradient).all()
        torch.testing.assert_close(gradient, parameter.grad)
    assert found[0][:24].abs().max() == 0


def test_vmap_contender_gives_each_network_its_own_gradient_and_noise(contenders: Any) -> None:
    plain = contenders("benchmark_contenders.plain_torch")
    vmap = contenders("benchmark_contenders.torch_vmap")
    workload = contenders("benchmark_contenders.workload").Workload(3, 1, noise=True, threads=1)
    torch.manual_seed(0)
    networks = [plain.NoisyPerceptron(noise=True) for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(networks)
    inputs, targets, draws = torch.rand(3, 256, 2), torch.rand(3, 256, 2), torch.randn(3, 256, 48)
    sigmas = torch.tensor([0.1, 0.2, 0.3])
    gradients = vmap.population_gradients(workload)
    found, losses = gradients(stacked, inputs, targets, sigmas, draws)
    for member, network in enumerate(networks):
        loss = torch.nn.functional.mse_loss(
            network(inputs[member], float(sigmas[member]), draws[member]), targets[member]
        )
        loss.backward()
        torch.testing.assert_close(losses[member], loss.detach())
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(found[name][member], parameter.grad)

    twins = {name: value[:1].detach().expand(3, *value.shape[1:]) for name, value in stacked.items()}
    same = [table[:1].expand(3, -1, -1) for table in (inputs, targets)]
    _, losses = gradients(twins, *same, torch.full((3,), 0.2))
    assert len(set(losses.tolist())) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_benchmark_without_a_cuda_device_says_so() -> None:
    ran = subprocess.run(
        [str(SCRIPTS / "benchmark"), "--device", "cuda"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (2, "")
    assert ran.stdout == "--device cuda: torch finds no CUDA device here.\n"


def test_benchmark_names_a_contender_that_it_does_not_know() -> None:
    finished = subprocess.run(
        [str(SCRIPTS / "benchmark"), "--only", "torch_lop"],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert "torch_lop" in finished.stderr
    assert "torch_loop" in finished.stderr


@pytest.mark.slow
def test_sweep_benchmark_times_a_grid_against_lightning_and_plans(tmp_path: Path) -> None:
    output = tmp_path / "sweep.json"
    ran = subprocess.run(
        [SCRIPTS / "benchmark", "sweep", "--quick", "--sample", "1", "--output", output],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(output.read_text())
    grid = report["grid"]
    assert grid["runs"] == 40
    assert set(grid["ratios"]) == set(grid["seconds"]) == set(grid["runs_per_hour"])
    assert grid["ratios"]["modulab"] == 1
    assert all(seconds > 0 for seconds in grid["seconds"].values())
    assert report["plan"]["jobs"] == 400
    assert report["many"]["members"] == 400
    assert "scaled to all of it" in " ".join(ran.stdout.split())


def test_answers_are_timed_in_turns_beside_python_alone(
    contenders: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = contenders("benchmark_contenders.answers")
    quick = ("Python alone", "import modulab", "modulab --help", "modulab train nois.scale=0.2")
    monkeypatch.setattr(answers, "COMMANDS", {name: answers.COMMANDS[name] for name in quick})
    assert answers.main(["--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert tuple(name for name, _, _ in rows) == quick
    assert rows[0][2] == "1"
    assert all(float(seconds) > 0 for _, seconds, _ in rows)


@pytest.mark.slow
def test_limit_benchmark_times_each_engine_beside_the_kernel(tmp_path: Path) -> None:
    output = tmp_path / "limit.json"
    command = [SCRIPTS / "benchmark", "limit", "--steps", "5", "--repeats", "1", "--engines", "native,eager"]
    finished = subprocess.run(
        [*command, "--output", output], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHON": sys.executable, "MODULAB_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = json.loads(output.read_text())
    *_, first_line, second_line, last_line = finished.stdout.splitlines()
    measuring = found["measuring"]
    assert last_line == (
        f"measuring, milliseconds a network: limit {measuring['limit']:.2f}, native {measuring['native']:.2f}, "
        f"ratio {measuring['native'] / measuring['limit']:.2f}"
    )
    rows = found["results"]
    assert [row["workload"] for row in rows] == ["no noise", "Poisson noise"]
    for row, line in zip(rows, (first_line, second_line), strict=True):
        printed = [float(cell) for cell in line.removeprefix(row["workload"]).split()]
        assert all(row[name] > 0 for name in ("limit", "native", "eager"))
        assert printed[0] == pytest.approx(row["limit"], abs=0.051)
        for first, name in ((1, "native"), (4, "eager")):
            assert printed[first] == pytest.approx(row[name], abs=0.051)
            assert printed[first + 1] == pytest.approx(row[name] / row["limit"], abs=0.0051)


@pytest.mark.slow
def test_limit_of_measuring_takes_the_same_measures(contenders: Any) -> None:
    limit = contenders("benchmark_contenders.limit")
    members, networks, mask = limit._networks_to_measure()
    by_hand = limit.LimitOfMeasuring(members, networks)
    found = dict(zip(by_hand.names, by_hand().double().T, strict=True))
    for factor in members[0].probes.ranges:
        for name, others in (("own", (0, 1)), ("other", (1, 0))):
            sides = [found[f"range@{factor:g} {side} {module}"] for side, module in enumerate(others)]
            found[f"error_beyond/{name}_range@{factor:g}"] = torch.stack(sides).mean(dim=0)
    measured = measure_each(members, networks, mask, members[0].probes).measures
    for name, values in found.items():
        if name.startswith("range@"):
            continue
        expected = torch.tensor(measured[name], dtype=torch.float64)
        if name.startswith("error_under/"):  # under other draws
            assert values.mean().item() == pytest.approx(expected.mean().item(), rel=0.06), name
        else:
            tolerance = 1e-3 if name == "modularity/structural_frame_null" else 2e-6  # whose angles are drawn
            torch.testing.assert_close(values, expected, rtol=tolerance, atol=tolerance)
    assert sum(name in measured for name in found) == 55


def test_measuring_benchmark_prints_the_share_of_each_kind(
    contenders: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measuring = contenders("benchmark_contenders.measuring")
    output = tmp_path / "measuring.json"
    options = [
        "--population",
        "2",
        "--turns",
        "1",
        "--engine",
        "eager",
        "--by-measure",
        "--kinds",
        "conditionals",
    ]
    assert measuring.main([*options, "--output", str(output)]) == 0
    [row] = json.loads(output.read_text()).values()
    measured = row["curves"] + row["final"]
    assert row["share"] == pytest.approx(measured / (row["steps"] + measured))
    assert row["measures"].keys() >= {"points", "errors", "functional"}
    assert f"{row['share']:.1%}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_record_has_the_times_that_the_benchmark_found(
    quick_benchmark: tuple[str, dict[str, Any]], contenders: Any
) -> None:
    results = quick_benchmark[1]["results"]
    [(condition, times)] = contenders("benchmark_contenders.history").by_condition(results).items()
    assert condition == "Poisson noise, 1 thread"
    ran = {record["contender"]: record for record in results if record["status"] == "ok"}
    assert times == {name: record["us_per_network_step"] for name, record in ran.items()}


def test_the_page_shows_every_record(contenders: Any) -> None:
    history = contenders("benchmark_contenders.history")
    records = history.read_records(RECORDS)
    assert [f"{record['release']}.json" for record in records] == sorted(
        path.name for path in RECORDS.iterdir()
    )
    page = (RECORDS.parent / "performance.md").read_text()
    assert "\n".join(history.table(records)) in page
    for record in records:
        assert f"{record['release']}: {record['machine']['processor']}" in page


def test_ratios_are_those_of_the_best_of_each_kind_to_the_faster_engine(contenders: Any) -> None:
    history = contenders("benchmark_contenders.history")
    record = {
        "release": "1",
        "limit": {"no noise": {"limit": 4.0, "native": 5.0, "compiled": 8.0}},
        "step": {
            "no noise, 2 threads": {
                "modulab": 4.0, "modulab_native": 2.0, "lightning": 500.0, "jax": 30.0, "jax_blocked": 20.0,
            }
        },
        "sweep": {"modulab": 10.0, "modulab, first time": 12.0, "Lightning, all runs in one process": 1500.0},
    }  # fmt: skip
    assert history.speed_of_limit(record) == {"no noise": 0.8}
    assert history.ratios(record) == {
        "best of JAX, no noise, 2 threads": 10.0,
        "stock Lightning, no noise, 2 threads": 250.0,
        "sweep: Lightning in one process": 150.0,
        "sweep: modulab's first": 1.2,
    }


def test_records_are_drawn_without_timing_anything(contenders: Any, tmp_path: Path) -> None:
    history = contenders("benchmark_contenders.history")
    copied = tmp_path / "benchmarks"
    shutil.copytree(RECORDS, copied)
    assert history.main(["--draw", "--folder", str(copied)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmarks", "benchmarks.png"]


def test_speed_that_falls_by_more_than_a_third_is_found(contenders: Any) -> None:
    check = contenders("benchmark_contenders.check")
    recorded = {"no noise": 0.6, "Poisson noise": 0.9}
    assert check.slower({"no noise": 0.41, "Poisson noise": 0.7}, recorded) == []
    assert check.slower({"no noise": 0.39, "Poisson noise": 0.7}, recorded) == ["no noise"]
