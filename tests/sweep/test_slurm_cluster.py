"""`hydra/launcher=population_slurm` on a throw-away cluster: whatever happens to shards or to the command that
waits for them, the same command again ends in the table of a sweep to which nothing happened.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modulab.results.store import load_results
from modulab.sweep.slurm_array import FOLDER
from tests.command_line import MODULAB, SMALL, Command, last_given
from tests.sweep.switched_sweep import SWEEP, SWITCHED, assert_same_bits, drawn

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm-single-node"
LAUNCHER = [
    "hydra/launcher=population_slurm",
    *(f"hydra.launcher.{each}" for each in ("shards=3", "cpus=1", "memory_gib=1", "poll_seconds=0.5")),
    "hydra.launcher.time_minutes=30",
]

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """Give the folder of a cluster of one node with three CPUs."""
    required = os.environ.get("MODULAB_REQUIRE_SLURM") == "1"
    if shutil.which("sbatch") is None and not required:
        pytest.skip("sbatch is not installed: see scripts/slurm-single-node install")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # A socket's path is at most 107 characters.
    settings = os.environ | {"NODE_CPUS": "3", "GRACE_SECONDS": "60"}
    try:
        subprocess.run([SCRIPT, "start", folder], env=settings, check=True, stdout=subprocess.PIPE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield folder
    finally:
        subprocess.run([SCRIPT, "stop", folder], check=True)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Give a function that returns the folder of the sweep, trained here in one population."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "switched.py").write_text(SWITCHED)
    process = subprocess.Popen([*MODULAB, *SWEEP], cwd=folder, stdout=subprocess.DEVNULL)

    def wait() -> Path:
        assert process.wait() == 0
        return folder / "sweep"

    yield wait
    process.kill()
    process.wait()


@pytest.fixture
def start(command: Command, cluster: Path) -> Iterator[Start]:
    """Give a function that starts a command in a folder that holds the task, and in the end clear the queue."""
    Path("switched.py").write_text(SWITCHED)
    Path("slow").touch()
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        begun.append(subprocess.Popen([*MODULAB, *arguments], stdout=pipe, stderr=pipe, text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()
    sys.modules.pop("switched", None)
    slurm("scancel", "--me")
    until(lambda: not states())


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def states() -> dict[str, str]:
    """Return the state of every job and task that the cluster has."""
    answer = slurm("squeue", "--noheader", "--array", "--format=%i %T")
    return dict(line.split() for line in answer.splitlines())


def until(condition: Callable[[], object]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.2)
    pytest.fail(f"SLURM did not get there: {states()}\n{logs()}")


def logs() -> str:
    return "\n".join(path.read_text() for path in Path("sweep", FOLDER).glob("*/*.out"))


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate()
    return process.returncode, out, err


def submitted() -> list[list[str]]:
    """Return the members of every shard that was ever submitted, one list an array."""
    records = sorted(Path("sweep", FOLDER).glob("*.json"), key=lambda path: int(path.name.partition(".")[0]))
    return [
        [run_id for _, _, run_ids in json.loads(record.read_text()) for run_id in run_ids]
        for record in records
    ]


def begun(shards: int) -> Callable[[], bool]:
    """Return whether so many shards have trained for a chunk."""
    return lambda: len({each.shard for each in drawn() if each.first > 0}) == shards


@pytest.mark.usefixtures("cluster")
def test_shards_give_the_bits_of_one_process_and_leave_their_logs_in_the_folder(command: Command) -> None:
    sweep = ["train", "-m", *SMALL, "seed=range(3)", "noise.scale=0,0.2"]
    folder = "my sweeps/of today"
    launcher = last_given(*LAUNCHER, "hydra.launcher.shards=2", f"hydra.sweep.dir='{folder}'")
    code, out, err = command(*sweep, *launcher)
    assert code == 0, err
    (job,) = re.findall(rf"^SLURM job (\d+) trains 2 shards; logs: {folder}/slurm$", err, re.MULTILINE)
    assert sorted(path.name for path in Path(folder, FOLDER).glob("*/*.out")) == [
        f"{job}_{task}_0_log.out" for task in range(2)
    ]
    assert not Path(folder, "parts").exists()
    for other in ("population", "basic"):
        code, _, err = command(*sweep, f"hydra/launcher={other}", f"hydra.sweep.dir={other}")
        assert code == 0, err
        assert_same_bits(folder, other)
    # The same command again has nothing to ask of SLURM.
    code, again, err = command(*sweep, *launcher)
    assert (code, err) == (0, "")
    assert again == out


def test_shards_that_slurm_stops_are_requeued_and_go_on_to_the_same_bits(
    start: Start, whole: Callable[[], Path]
) -> None:
    waiting = start(*SWEEP, *LAUNCHER)
    until(begun(3))
    shards = set(states())
    # A job of the high partition takes the CPU of one shard.
    high = slurm("sbatch", "--parsable", "--partition=high", "--output=/dev/null", "--wrap=sleep 2")
    until(lambda: set(states().values()) != {"RUNNING"})
    until(lambda: states().get(high) == "RUNNING")
    left = [name for name, state in states().items() if state == "RUNNING" and name in shards]
    assert len(left) == 2
    # One gets the signal with which clusters preempt that do not send the one asked for.
    slurm("scancel", "--signal=TERM", left[0])
    # One runs out of time, but not again when it has come back.
    slurm("scontrol", "update", f"jobid={left[1]}", "EndTime=now+60")
    until(lambda: states()[left[1]] == "PENDING")
    slurm("scontrol", "update", f"jobid={left[1]}", "TimeLimit=30", "StartTime=now")
    until(lambda: len({each.process for each in drawn()}) == 6)
    Path("slow").unlink()
    code, _, err = end(waiting)
    assert code == 0, err
    log = logs()
    assert log.count("Starting with JobEnvironment") == 6
    assert log.count("Requeued job") == 3
    for shard in shards:
        before, after = dict.fromkeys(each.process for each in drawn() if each.shard == shard)
        last = max(each.first for each in drawn() if each.process == before)
        assert min(each.first for each in drawn() if each.process == after) > last
    chunks = Counter((each.member, each.first) for each in drawn())
    assert set(chunks.values()) == {1}
    assert len(chunks) == 6 * 80
    assert_same_bits("sweep", whole())


def test_members_that_fail_or_whose_shard_dies_are_rows_that_say_so_and_the_next_start_trains_those(
    command: Command, start: Start, whole: Callable[[], Path]
) -> None:
    train = [*SWEEP, *LAUNCHER, "trainer.largest_population=1", "trainer.checkpoint_seconds=1"]
    Path("broken").touch()
    waiting = start(*train)
    until(begun(3))
    killed, kept, cancelled = sorted(states())
    os.kill(next(each.process for each in drawn() if each.shard == killed), signal.SIGKILL)
    slurm("scancel", cancelled)
    until(lambda: set(states()) == {kept})
    Path("slow").unlink()
    code, out, err = end(waiting)
    assert code == 1, err
    first = load_results("sweep").set_index("config.task.function_seed").sort_index()
    assert first["status"].tolist() == ["missing", "missing", "failed", "completed", "missing", "missing"]
    assert first["error"][2] == "RuntimeError: no such function"
    for member, shard in ((0, killed), (1, killed), (4, cancelled), (5, cancelled)):
        log = Path(f"sweep/slurm/{shard}/{shard}_0_log.out").absolute()
        assert first["error"][member] == f"shard {shard} ended without it; its log: {log}"
        assert log.exists()
        assert str(log) in out
    Path("broken").unlink()
    code, _, err = command(*train)
    assert code == 0, err
    assert [len(array) for array in submitted()] == [6, 5]
    assert first["run_id"][3] not in submitted()[1]
    second = load_results("sweep").set_index("config.task.function_seed")
    assert second["seconds"][3] == first["seconds"][3]
    assert_same_bits("sweep", whole())


def test_an_array_outlives_the_command_that_waits_for_it_and_the_same_command_finds_it_again(
    command: Command, start: Start, whole: Callable[[], Path]
) -> None:
    train = last_given(*SWEEP, *LAUNCHER, "hydra.launcher.shards=2")
    waiting = start(*train)
    until(begun(2))
    shards = states()
    (job,) = {name.partition("_")[0] for name in shards}
    waiting.send_signal(signal.SIGINT)
    code, _, err = end(waiting)
    assert code == 130
    assert "Traceback" not in err
    assert f"SLURM job {job} continues; repeat the command to wait for it. To stop it: scancel {job}\n" in err
    assert re.search(
        r"^  modulab train -m .* hydra/launcher=population_slurm .* hydra.sweep.dir=sweep$", err, re.M
    )
    assert load_results("sweep")["status"].tolist() == ["missing"] * 6

    waiting = start(*train)
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == (
        f"SLURM job {job} is still running; waiting for its remaining 2 shards\n"
    )
    waiting.kill()
    assert end(waiting)[0] == -signal.SIGKILL
    assert states() == shards

    Path("slow").unlink()
    code, _, err = command(*train)
    assert code == 0, err
    assert [len(array) for array in submitted()] == [6]
    assert len({each.process for each in drawn()}) == 2
    assert_same_bits("sweep", whole())


@pytest.mark.usefixtures("cluster")
def test_a_partition_that_there_is_not_is_an_error_in_one_line(command: Command) -> None:
    code, out, err = command("train", "-m", *SMALL, "seed=0,1", *LAUNCHER, "hydra.launcher.partition=nowhere")
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"error: .* invalid partition specified: nowhere; .* hydra\.launcher\.partition .*\n", err
    )


def test_command_of_the_page_on_sweeps_for_a_cluster_runs_as_written(cluster: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/sweeps.md").read_text()
    (block,) = re.findall(r"```sh\n([^`]*population_slurm[^`]*)```", page)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(
        block, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert load_results(tmp_path / "outputs/cluster")["status"].tolist() == ["completed"] * 8
