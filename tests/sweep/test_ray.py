"""What can be said of `hydra/launcher=population_ray` without a cluster."""

from __future__ import annotations

import re
import shlex
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modulab.config.settings import read_run
from modulab.errors import ConfigError
from modulab.extras import is_there
from modulab.results.store import load_results
from modulab.results.versions import versions
from modulab.sweep.node_shard import NodeShard
from modulab.sweep.ray_connection import _left_behind, connect
from modulab.sweep.ray_tasks import Ended, RaySettings, RayTask, train_shard
from tests.command_line import SMALL, Command
from tests.members import EAGER, EAGERLY, member_config

RAY = ["train", "-m", *SMALL, "hydra/launcher=population_ray"]
SETTINGS: dict[str, Any] = {
    "address": None, "shards": 8, "cpus": 2, "gpus": 0.0, "memory_gib": 4.0, "max_retries": 3, "resources": None,
    "runtime_env": None, "poll_seconds": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shards", 0), ("cpus", 0), ("gpus", -0.5), ("gpus", float("nan")), ("memory_gib", 0.0), ("max_retries", -1),
        ("poll_seconds", 0.0), ("resources", 3), ("runtime_env", "x"),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_an_error_that_names_its_key(key: str, value: object) -> None:
    RaySettings(**SETTINGS)
    with pytest.raises(ConfigError, match=rf"^hydra\.launcher\.{key}={value} should be "):
        RaySettings(**SETTINGS | {key: value})


def test_a_task_takes_what_its_settings_ask_for_and_nothing_else() -> None:
    assert RaySettings(**SETTINGS).demand == {"CPU": 2, "memory": 4 * 2**30}
    asked = RaySettings(**SETTINGS | {"gpus": 0.5, "resources": {"big_node": 1}})
    assert asked.demand == {"CPU": 2, "GPU": 0.5, "memory": 4 * 2**30, "big_node": 1}


def test_an_address_that_a_crashed_cluster_left_is_told_from_that_of_one_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert _left_behind() is None
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        file.write_text(f"{address}\n")
        assert _left_behind() is None
    assert _left_behind() == address


@pytest.mark.ray
@pytest.mark.skipif(not is_there("ray"), reason="ray is not installed: pip install 'modulab[ray]'")
@pytest.mark.parametrize(
    ("failures", "error", "last"),
    [
        (1, "RuntimeError: Proxy failed to Connect to backend! Check the logs.", None),
        (2, "psutil.ZombieProcess: PID still exists but it's a zombie (pid=7)", None),
        (3, "RuntimeError: Proxy failed to Connect to backend! Check. Or not.", "Proxy failed to .*! Check"),
        (1, "RuntimeError: Failed to create runtime_env. Why", "Failed to create runtime_env"),
    ],
)
def test_a_server_that_ray_did_not_start_for_a_client_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    failures: int,
    error: str,
    last: str | None,
) -> None:
    import ray

    calls = 0

    def init(**options: Any) -> None:
        nonlocal calls
        calls += 1
        print("what Ray says", flush=True)
        if calls <= failures:
            raise ConnectionAbortedError(
                f"Initialization failure from server:\nTraceback (most recent call last):\n  File ...\n{error}\n"
            )

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    if last is None:
        assert connect("ray://localhost", None) == "ray://localhost"
    else:
        with pytest.raises(ConfigError, match=rf"Ray cannot be reached: RuntimeError: {last}\. Check hydra"):
            connect("ray://localhost", None)
    out, err = capfd.readouterr()
    assert out == ""
    attempts = [f"Ray did not start a server for this client: attempt {number} of 3" for number in (1, 2)]
    again = [] if "runtime_env" in error else attempts[:failures]
    assert err.splitlines() == ["connecting to Ray at ray://localhost", *again]


def test_a_dry_run_tells_of_the_shards_and_starts_nothing(command: Command) -> None:
    launcher = ["shards=3", "cpus=4", "memory_gib=1.5", "gpus=0.5", "address=nowhere:1"]
    code, out, err = command(
        *RAY, "seed=range(7)", "sweep.dry_run=true", "hydra.sweep.dir=sweep",
        *(f"hydra.launcher.{each}" for each in launcher),
    )  # fmt: skip
    assert code == 0, err
    told = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    assert told["shards"] == "3 tasks of Ray, 3 at once, the largest of 3 networks"
    assert told["each"] == "4 CPUs, 0.5 GPUs and 1.5 GiB"
    assert not Path("sweep").exists()


def test_the_manifest_of_the_page_on_sweeps_has_room_for_the_shards_of_its_command(command: Command) -> None:
    page = (Path(__file__).parents[2] / "docs/sweeps.md").read_text()
    (text,) = re.findall(r"```yaml\n(apiVersion: ray.*?)```", page, re.DOTALL)
    job = yaml.safe_load(text)["spec"]
    program, *words = shlex.split(job["entrypoint"])
    assert program == "modulab"
    code, out, err = command(*words, "sweep.dry_run=true")
    assert code == 0, err
    told = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    given = dict(word.split("=", 1) for word in words if "=" in word)
    assert told["each"] == "2 CPUs, 0 GPUs and 4 GiB"
    cluster = job["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert told["shards"].startswith(f"{workers['replicas']} tasks of Ray, {workers['replicas']} at once")
    for node in (cluster["headGroupSpec"], workers):  # the command itself runs on the head
        (container,) = node["template"]["spec"]["containers"]
        (mount,) = container["volumeMounts"]
        assert Path(given["hydra.sweep.dir"]).is_relative_to(mount["mountPath"])
        assert [mount["name"]] == [each["name"] for each in node["template"]["spec"]["volumes"]]
        limits = container["resources"]["limits"]
        assert int(limits["cpu"]) >= 2
        # Ray keeps three tenths of a node's memory for its own store of objects.
        assert 0.7 * int(limits["memory"].removesuffix("Gi")) >= 4


def test_where_ray_is_missing_the_message_names_the_extra(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modulab.extras.is_there", lambda name: name != "ray")
    code, out, err = command(*RAY, "seed=0,1", "hydra.sweep.dir=sweep")
    assert (code, out) == (2, "")
    assert err == (
        "error: hydra/launcher=population_ray needs ray, which is not installed. "
        "Install it with: pip install 'modulab[ray]'\n"
    )
    assert not Path("sweep").exists()


@pytest.fixture
def task(tmp_path: Path) -> RayTask:
    """Give the task of one member, with its log in a folder that is there."""
    config = member_config(training__steps=20, training__curve_every=10, probes__num_samples=64)
    shard = NodeShard([config], EAGER, str(tmp_path), [str(tmp_path)], EAGERLY)
    programs = {name: versions()[name] for name in ("modulab", "torch")}
    (tmp_path / "logs").mkdir()
    return RayTask(shard, str(tmp_path / "logs" / "0.log"), str(tmp_path), {}, programs)


def test_a_node_that_does_not_share_the_folder_trains_nothing_and_says_so(task: RayTask) -> None:
    ended = train_shard(replace(task, log=str(Path(task.shard.folder, "elsewhere", "0.log"))))
    assert ended.how == "refused"
    assert ended.reason == (
        f"node {socket.gethostname()} does not see {task.shard.folder}. The output folder has to be on a file system "
        "that all nodes share: choose one with hydra.sweep.dir=FOLDER."
    )
    assert not list(Path(task.shard.folder).rglob("*.parquet"))


def test_a_node_with_another_version_trains_nothing_and_says_so(task: RayTask) -> None:
    ended = train_shard(replace(task, versions={**task.versions, "torch": "0.4"}))
    assert ended.how == "refused"
    assert ended.reason.endswith(
        f"modulab {versions()['modulab']} and torch 0.4. Install the same on all nodes."
    )
    assert not list(Path(task.shard.folder).rglob("*.parquet"))


def test_a_shard_leaves_rows_in_the_folder_and_its_output_in_a_log(
    task: RayTask, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(task.folder).parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert train_shard(task) == Ended("whole")
    rows = load_results(task.shard.folder)
    assert rows["run_id"].tolist() == [read_run(task.shard.configs[0]).run_id]
    assert rows["status"].tolist() == ["completed"]
    assert "trained 1 networks\n" in Path(task.log).read_text()
    broken = replace(task.shard, configs=[{"seed": 0}])
    ended = train_shard(replace(task, shard=broken))
    assert ended.how == "failed"
    assert ended.reason in Path(task.log).read_text()
    assert capfd.readouterr() == ("", "")
