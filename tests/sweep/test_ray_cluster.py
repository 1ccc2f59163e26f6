"""`hydra/launcher=population_ray` on a throw-away cluster of two nodes: whatever happens to a node, a process or the
command that waits, the sweep ends in the table of one that was trained here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from modulab.extras import is_there
from modulab.results.store import load_results
from tests.command_line import MODULAB, SMALL, last_given
from tests.sweep.switched_sweep import SWEEP, SWITCHED, assert_same_bits, drawn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(not is_there("ray"), reason="ray is not installed: pip install 'modulab[ray]'"),
]

ROOT = Path(__file__).parents[2]
EQUAL_PRIORITY = {"RAY_worker_niceness": "0"}
"""By default tasks have a lower priority: beside other tests, they would hardly ever run."""
TOLD = Path("told")
"""What the sweep of a test writes to standard error, in the test's folder."""
Start = Callable[..., subprocess.Popen[str]]


class Cluster:
    """A cluster in a process of its own, which obeys."""

    def __init__(self, folder: str, own: Mapping[str, str] | None = None, **node: object) -> None:
        """Start one, with environment variables of its `own` and settings of its first `node`."""
        self.environment = os.environ | EQUAL_PRIORITY | {"RAY_TMPDIR": folder} | (own or {})
        """With which commands find it without its address."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray_cluster", json.dumps(node)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self.environment,
        )
        self.address = self._answer()

    def order(self, word: str) -> None:
        assert self.process.stdin is not None
        print(word, file=self.process.stdin, flush=True)
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Give a cluster of one node with one CPU."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # A socket's path is short.
        cluster = Cluster(folder)
        yield cluster
        cluster.stop()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the sweep, trained without Ray."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "switched.py").write_text(SWITCHED)
    train_here(folder)
    return folder / "sweep"


@pytest.fixture
def start(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Give a function that starts the slow sweep on the cluster."""
    monkeypatch.chdir(tmp_path)
    Path("switched.py").write_text(SWITCHED)
    Path("slow").touch()
    begun: list[subprocess.Popen[str]] = []
    keys = ["cpus=1", "memory_gib=0.5", "poll_seconds=0.2"]
    launcher = ["hydra/launcher=population_ray", *(f"hydra.launcher.{key}" for key in keys)]

    def begin(*arguments: str) -> subprocess.Popen[str]:
        words = [*MODULAB, *SWEEP, *launcher, "trainer.checkpoint_seconds=1", *arguments]
        with TOLD.open("w") as told:
            begun.append(
                subprocess.Popen(
                    words, stdout=subprocess.PIPE, stderr=told, text=True, env=cluster.environment
                )
            )
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, _ = process.communicate()
    err = TOLD.read_text()
    assert "Traceback" not in err
    return process.returncode, out, err


def at_work(process: subprocess.Popen[str], processes: int) -> list[int]:
    """Wait until so many processes have trained for a chunk beyond what was drawn before, and return their ids."""
    before = len(drawn())
    for _ in range(3000):
        found = Counter(each.process for each in drawn()[before:])
        ids = [number for number, count in found.items() if count > 6]
        if len(ids) == processes:
            return ids
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"the shards did not begin: {TOLD.read_text()}")


def wait_until(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    for _ in range(3000):
        if happened():
            return
        time.sleep(0.1)
    pytest.fail(f"the sweep told meanwhile: {TOLD.read_text()}")


def wait_until_told(words: str) -> None:
    """Wait until the sweep has told its progress in these words."""
    wait_until(lambda: words in TOLD.read_text())


def runs(process: int) -> bool:
    """Return whether a process has not ended."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def train_here(folder: Path | None = None) -> None:
    """Run the sweep without Ray; in a folder that Ray has trained in, it goes on there."""
    subprocess.run([*MODULAB, *SWEEP], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def test_a_shard_whose_node_dies_goes_on_elsewhere_and_a_members_own_error_fails_it_alone(
    cluster: Cluster, start: Start, here: Path
) -> None:
    cluster.order("add")
    waiting = start(
        f"hydra.launcher.address={cluster.address}", "hydra.launcher.shards=2", "trainer.largest_population=1"
    )
    processes = at_work(waiting, 2)
    wait_until_told("shards: 2 running, 0 waiting, 0 ended")
    cluster.order("kill")
    wait_until(
        lambda: not all(map(runs, processes))
    )  # it goes on for a moment, and would be fast without `slow`
    Path("broken").touch()
    Path("slow").unlink()
    code, out, err = end(waiting)
    assert code == 1, err
    assert re.search(
        r"^shard \w+_\d was lost \(.*node.*\); it resumes from its last checkpoint, retry 1 of 3$", err, re.M
    )
    assert "shards: 2 running, 0 waiting, 0 ended" in err
    assert "(raylet)" not in out + err
    assert len(list(Path("sweep/ray").glob("*/*.log"))) == 4  # of shards, a retry and Ray itself
    rows = load_results("sweep").set_index("config.task.function_seed").sort_index()
    assert rows["status"].tolist() == ["completed"] * 2 + ["failed"] + ["completed"] * 3
    assert rows["error"][2] == "RuntimeError: no such function"
    whole = [each for each in drawn() if each.member != 2]
    counts = Counter((each.member, each.first) for each in whole)
    assert len(counts) == 5 * 80
    assert sum(counts.values()) <= 5 * 80 + 3  # not from the beginning, which had more chunks behind it
    Path("broken").unlink()
    train_here()
    assert_same_bits("sweep", here)


def test_a_shard_without_retries_left_is_missing_and_ctrl_c_saves_all_that_is_trained(
    start: Start, here: Path
) -> None:
    train = ["hydra.launcher.shards=1", "hydra.launcher.max_retries=0"]
    waiting = start(*train)
    (process,) = at_work(waiting, 1)
    os.kill(process, signal.SIGKILL)
    code, _, err = end(waiting)
    assert code == 1, err
    rows = load_results("sweep")
    assert rows["status"].tolist() == ["missing"] * 6
    assert re.fullmatch(
        r"shard (\w+)_0 ended without it \(.*\); its log: .*/sweep/ray/\1/0\.log", rows["error"][0]
    )
    Path("drawn").unlink()
    waiting = start(*train)
    at_work(waiting, 1)
    waiting.send_signal(signal.SIGINT)
    code, _, err = end(waiting)
    assert code == 130
    assert "stopping 1 shard after saving; press Ctrl-C again to stop without saving\n" in err
    Path("slow").unlink()
    train_here()
    assert set(Counter((each.member, each.first) for each in drawn()).values()) == {1}
    assert_same_bits("sweep", here)


def test_command_of_the_page_on_sweeps_for_ray_runs_as_written_on_this_machine(tmp_path: Path) -> None:
    page = (ROOT / "docs/sweeps.md").read_text()
    (block,) = re.findall(r"```sh\n([^`]*population_ray[^`]*)```", page)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        crashed = Path(folder, "ray", "ray_current_cluster")  # Ray itself would try it for many minutes
        crashed.parent.mkdir()
        crashed.write_text("127.0.0.1:1")
        ran = subprocess.run(
            block,
            shell=True,
            cwd=tmp_path,
            env=os.environ | EQUAL_PRIORITY | {"PATH": path, "RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    told = ran.stderr.splitlines()
    assert told[0] == "Ray's last cluster on this machine, 127.0.0.1:1, does not answer: one is started here"
    assert told[1].startswith("Ray (started on this machine) trains 2 shards; logs: outputs/ray/ray/")
    assert load_results(tmp_path / "outputs/ray")["status"].tolist() == ["completed"] * 8


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-the-tests"}
WITHOUT_TOKEN = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
SMALL_SWEEP = last_given(
    "train", "-m", *SMALL, "noise.scale=0,0.2", "hydra/launcher=population_ray", "hydra.launcher.cpus=1",
    "hydra.launcher.memory_gib=0.5", "hydra.launcher.shards=2", "hydra.launcher.poll_seconds=0.2",
)  # fmt: skip


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[Cluster, int, int]]:
    """Give a cluster that asks for a token, and the ports for clients and for jobs."""
    clients, jobs, agent = (free_port() for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        cluster = Cluster(  # beside others: each needs ports of its own
            folder,
            TOKEN,
            ray_client_server_port=clients,
            include_dashboard=True,
            dashboard_port=jobs,
            dashboard_agent_listen_port=agent,
        )
        yield cluster, clients, jobs
        cluster.stop()


@pytest.fixture(scope="module")
def small_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the small sweep, trained without Ray."""
    folder = tmp_path_factory.mktemp("small")
    words = [word for word in SMALL_SWEEP if "hydra" not in word]
    subprocess.run([*MODULAB, *words, f"hydra.sweep.dir={folder}"], check=True, capture_output=True)
    return folder


def test_a_cluster_that_asks_for_a_token_says_so_to_a_command_without_it(
    guarded: tuple[Cluster, int, int], tmp_path: Path
) -> None:
    cluster, _, _ = guarded
    words = [*MODULAB, *SMALL_SWEEP, f"hydra.launcher.address={cluster.address}", "hydra.sweep.dir=sweep"]
    for own, reason in (
        (WITHOUT_TOKEN, "the token for it is missing or wrong"),
        (
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "", "HOME": str(tmp_path)},
            "Token authentication is enabled but no authentication token was found",
        ),
    ):
        environment = {name: value for name, value in (cluster.environment | own).items() if value}
        ran = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 2
        connecting, refused = ran.stderr.splitlines()
        assert connecting == f"connecting to Ray at {cluster.address}"
        assert refused.startswith(
            f"error: hydra/launcher=population_ray: Ray cannot be reached: {reason}. Check "
        )
        assert "if the cluster asks for a token, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in refused
        assert not (tmp_path / "sweep").exists()


def test_a_client_from_elsewhere_trains_the_same_bits(
    guarded: tuple[Cluster, int, int], small_here: Path, tmp_path: Path
) -> None:
    cluster, clients, _ = guarded
    words = [f"hydra.launcher.address=ray://127.0.0.1:{clients}", "hydra.sweep.dir=sweep"]
    ran = subprocess.run(
        [*MODULAB, *SMALL_SWEEP, *words],
        cwd=tmp_path, env=cluster.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Warning" not in ran.stderr
    assert_same_bits(tmp_path / "sweep", small_here)


def test_a_job_that_is_submitted_to_the_cluster_trains_the_same_bits(
    guarded: tuple[Cluster, int, int], small_here: Path, tmp_path: Path
) -> None:
    cluster, _, jobs = guarded
    command = [*MODULAB, *SMALL_SWEEP, f"hydra.sweep.dir={tmp_path}/sweep"]
    submit = [
        str(Path(sys.executable).with_name("ray")),
        "job",
        "submit",
        "--address",
        f"http://127.0.0.1:{jobs}",
        "--",
    ]
    for _ in range(60):
        ran = subprocess.run(
            [*submit, *command],
            cwd=tmp_path,
            env=cluster.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if "No available agent to submit job" not in ran.stderr:  # as long as the cluster is starting
            break
        time.sleep(1)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "trains 2 shards" in ran.stdout
    assert_same_bits(tmp_path / "sweep", small_here)
