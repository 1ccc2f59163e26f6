"""W&B's own files, read by W&B's own reader, say what results.parquet and curves.parquet say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from modulab.results.store import load_curves, load_results
from tests.command_line import MODULAB, SMALL, WholeCommand, last_given
from tests.logger.offline_runs import differences, members_of, offline_runs
from tests.logger.wandb_server import wandb_server

ROOT = Path(__file__).parents[2]
WANDB = ["logger=wandb", "logger.wandb.mode=offline"]

BRITTLE = """
from modulab.tasks.regression import RegressionTask

class BrittleTask(RegressionTask):
    def draw(self, keys, counters, region, split, scales=None):
        if self.function_seed == 13:
            raise RuntimeError("no such function")
        return super().draw(keys, counters, region, split, scales)
"""


def killed_when(condition: Callable[[], bool], command: list[str], cwd: Path) -> None:
    """Start a command, and kill it with SIGKILL as soon as a condition holds."""
    process = subprocess.Popen(
        [*MODULAB, *command], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not condition():
        assert process.poll() is None, "over before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the folder of temporary files, by a short path, as that of a socket may be."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.mark.slow
def test_a_sweep_killed_and_resumed_leaves_a_run_a_member_that_says_what_its_files_say(
    tmp_path: Path, temporary: Path, whole_command: WholeCommand
) -> None:
    (tmp_path / "brittle.py").write_text(BRITTLE)
    command = [
        "train", *SMALL, *WANDB, "task._target_=brittle.BrittleTask", "hydra.run.dir=sweep",
        "logger.wandb.tags=[mine]", "trainer.largest_population=10", "trainer.checkpoint_seconds=0",
        "logger.wandb.live_up_to=0", "population.seeds=11",
        "population.grid=[{architecture: [dense], architecture.width: [6, 8], noise.scale: [0, 0.1]},"
        " {architecture: [premodular], noise.scale: [0, 0.1, 0.2], regulariser.strength: [0, 0.01]}]",
    ]  # fmt: skip
    bad = ["population.seeds=1", "population.grid=none", "task.function_seed=13"]
    folder = tmp_path / "sweep"

    killed_when(lambda: len(list(folder.glob("parts/*.results.parquet"))) >= 3, command, tmp_path)
    assert (load_results(folder)["status"] == "missing").any()
    killed_when(lambda: len(list(folder.glob("wandb/offline-run-*/*.wandb"))) >= 25, command, tmp_path)
    assert whole_command(command, tmp_path).returncode == 0
    once_more = [word for word in command if not word.startswith("population.")] + bad
    assert whole_command(once_more, tmp_path).returncode == 1

    runs = offline_runs(folder)
    members, results = members_of(runs), load_results(folder)
    assert len(members) == len(results) == 111
    assert len(runs) == 112
    assert differences(members, results, load_curves(folder)) == []
    assert {run.facts["run_group"] for run in runs.values()} == {"sweep"}
    for row in results.to_dict("records"):
        run = members[row["run_id"]]
        failed = row["status"] == "failed"
        assert run.exit_code == failed
        assert run.facts.get("notes") == ("RuntimeError: no such function" if failed else None)
        noise = "noise:poisson" if row["config.noise.scale"] else "noise:none"
        assert {"mine", noise, f"architecture:{row['config.architecture.name']}"} < set(run.facts["tags"])
        axes = {
            metric["glob_name"]: metric["step_metric"] for metric in run.metrics if "step_metric" in metric
        }
        assert axes == {"*": "training/step"}
    assert (results["status"] == "failed").sum() == 1
    [whole] = [run for run in runs.values() if run.facts["job_type"] == "sweep"]
    assert whole.summary["members/completed"] == 110
    assert whole.summary["results.nrows"] == 111
    # Nothing new to tell: nothing is written again.
    before = {path.name for path in folder.glob("wandb/offline-run-*")}
    assert "111 of 111" in whole_command(["log", "sweep", *WANDB], tmp_path).stdout
    assert len(before - {path.name for path in folder.glob("wandb/offline-run-*")}) <= 1
    assert not list(temporary.glob("modulab-wandb-*"))


@pytest.mark.slow
def test_a_small_population_is_written_while_it_trains_and_goes_on_after_a_kill(
    tmp_path: Path, temporary: Path, whole_command: WholeCommand
) -> None:
    long = [word for word in SMALL if not word.startswith(("training.steps", "training.curve_every"))]
    long += ["training.steps=2000", "training.curve_every=50", "trainer.checkpoint_seconds=0"]
    command = ["train", *long, *WANDB, "population.seeds=2", "hydra.run.dir=run"]
    folder = tmp_path / "run"

    def visible() -> bool:
        files = list(folder.glob("wandb/offline-run-*/*.wandb"))
        return len(files) == 2 and all(b"training/loss" in file.read_bytes() for file in files)

    killed_when(visible, command, tmp_path)
    assert load_results(folder)["status"].tolist() == ["missing"] * 2
    assert whole_command(command, tmp_path).returncode == 0
    runs = offline_runs(folder)
    assert len(runs) == 3
    assert differences(members_of(runs), load_results(folder), load_curves(folder)) == []
    for run in members_of(runs).values():
        assert max(run.times) - min(run.times) > 0.02, "written all at once"
    assert not list(temporary.glob("modulab-wandb-*"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}


def service_of(folder: Path) -> list[int]:
    """Return the process of W&B's service that a run in a folder started."""
    workers = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_text().split("\0")
        except OSError:
            continue
        workers[int(path.name)] = words
    own = {
        number
        for number, words in workers.items()
        if "modulab.logger.wandb_worker" in words and str(folder) in words
    }
    return [
        number
        for number, words in workers.items()
        if words[0].endswith("wandb-core") and any(str(worker) in words for worker in own)
    ]


LONG = last_given(*SMALL, "training.steps=1500", "training.curve_every=50", "population.seeds=2")


@pytest.mark.slow
def test_a_service_that_is_killed_is_reported_once_and_all_can_be_logged_later(
    tmp_path: Path, environment: dict[str, str], whole_command: WholeCommand
) -> None:
    folder = tmp_path / "run"
    command = [*MODULAB, "train", *LONG, *WANDB, f"hydra.run.dir={folder}"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(folder.glob("wandb/offline-run-*/*.wandb")):
        assert process.poll() is None
        time.sleep(0.01)
    services = service_of(folder)
    assert services
    for service in services:
        os.kill(service, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert (load_results(folder)["status"] == "completed").all()
    assert err.count("W&B: ") == 1, err
    assert "Traceback" not in err
    assert whole_command(["log", str(folder), *WANDB], tmp_path, environment).returncode == 0
    runs = offline_runs(folder)
    assert len(runs) == 3
    assert differences(members_of(runs), load_results(folder), load_curves(folder)) == []


@pytest.mark.slow
def test_the_command_of_a_wandb_agent_runs_and_reports_the_mean_as_its_trial(
    tmp_path: Path, environment: dict[str, str], whole_command: WholeCommand
) -> None:
    # Every worker imports this file, and one runs its tests.
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((ROOT / "scripts" / "wandb-sweep.yaml").read_text())
    chosen = {"noise.scale": 0.25, "regulariser.strength": 0.001, "architecture": "premodular"}
    assert sweep["parameters"].keys() == chosen.keys()
    words = create_sweep_command_args({"args": {key: {"value": value} for key, value in chosen.items()}})
    line: list[str] = []
    for word in sweep["command"]:
        macro = re.fullmatch(r"\$\{(\w+)\}", word)
        line += [word] if macro is None else words.get(macro[1], [])
    assert line[0] == "train"
    trial = {"WANDB_RUN_ID": "trial1", "WANDB_SWEEP_ID": "sweep1"}
    small = [*SMALL, "population.seeds=2", "logger.wandb.mode=offline", f"hydra.run.dir={tmp_path}"]
    given = [word for word in line if not word.startswith(("population.seeds", "training.steps"))]
    ran = whole_command([*given, *small], tmp_path, environment | trial)
    assert ran.returncode == 0, ran.stderr
    runs, results = offline_runs(tmp_path), load_results(tmp_path)
    assert results["config.noise.scale"].tolist() == [0.25] * 2
    assert len(runs) == 3
    whole = runs["trial1"]
    assert whole.facts["sweep_id"] == "sweep1"
    assert all("sweep_id" not in run.facts for run in members_of(runs).values())
    name = sweep["metric"]["name"]
    assert whole.summary[name] == pytest.approx(results[name].mean())


@pytest.mark.slow
@pytest.mark.parametrize("live_up_to", [0, 16])
def test_online_the_server_has_a_run_a_member_with_its_curves_once(
    tmp_path: Path, environment: dict[str, str], live_up_to: int, whole_command: WholeCommand
) -> None:
    command = ["train", *SMALL, "logger=wandb", f"logger.wandb.live_up_to={live_up_to}", "population.seeds=2"]
    with wandb_server() as (found, runs):
        for _ in range(2):  # The second time there is nothing new.
            ran = whole_command([*command, "hydra.run.dir=run"], tmp_path, environment | found)
            assert ran.returncode == 0, ran.stderr
            assert "W&B" not in ran.stderr
    results, curves = (load(tmp_path / "run") for load in (load_results, load_curves))
    members = {name.partition("-")[0]: run for name, run in runs.items() if run.facts["jobType"] == "member"}
    assert members.keys() == set(results["run_id"])
    assert len(runs) == 3
    for row in results.to_dict("records"):
        run = members[row["run_id"]]
        own = curves[curves["run_id"] == row["run_id"]]
        assert {
            (name, line["_step"]): line[name] for line in run.history.values() for name in set(own["measure"])
        } == {(point.measure, point.step): point.value for point in own.itertuples()}
        assert len(run.history) == own["step"].nunique()
        assert run.summary["modularity/structural"] == row["modularity/structural"]
        assert run.facts["groupName"] == "run"
        assert run.exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("live_up_to", [0, 16])
def test_without_a_network_all_is_kept_for_a_later_upload_and_said_once(
    tmp_path: Path, environment: dict[str, str], live_up_to: int, whole_command: WholeCommand
) -> None:
    offline = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    settings = ["logger=wandb", "logger.wandb.patience_seconds=2", f"logger.wandb.live_up_to={live_up_to}"]
    train = ["train", *SMALL, *settings, "population.seeds=2", "hydra.run.dir=run"]
    ran = whole_command(train, tmp_path, environment | offline)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("W&B: ") == 1, ran.stderr
    assert "wandb sync" in ran.stderr
    runs = offline_runs(tmp_path / "run")
    members = members_of(runs)
    assert differences(members, load_results(tmp_path / "run"), load_curves(tmp_path / "run")) == []


def test_a_folder_that_wandb_cannot_write_to_stops_nothing_and_is_said_once(
    tmp_path: Path, environment: dict[str, str], whole_command: WholeCommand
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "wandb").write_text("in the way")
    ran = whole_command(["train", *SMALL, *WANDB, "hydra.run.dir=run"], tmp_path, environment)
    assert ran.returncode == 0, ran.stderr
    assert load_results(folder)["status"].tolist() == ["completed"]
    assert len(re.findall("W&B: ", ran.stderr)) == 1, ran.stderr
    (folder / "wandb").unlink()
    assert whole_command(["log", "run", *WANDB], tmp_path, environment).returncode == 0
    assert differences(members_of(offline_runs(folder)), load_results(folder), load_curves(folder)) == []
