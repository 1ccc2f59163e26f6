"""How many cores a process may use: those given to it, and the CPU time of its container."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modulab.cores import cpu_count

GIVEN = len(os.sched_getaffinity(0))
CPU_CONTROLLER = Path("/sys/fs/cgroup/cpu")


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write which groups a process is in, and their files below sys/fs/cgroup."""
    for name, text in {
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{key}": files[key] for key in files},
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("", {}, 16),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # one core and a half
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 16),
        ("0::/pod/container\n", {"pod/container/cpu.max": "max 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),
        ("0::/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": ""}, 16),
        ("3:cpu,cpuacct:/job\n", {"cpu/job/cpu.cfs_quota_us": "500000", "cpu/job/cpu.cfs_period_us": "100000"}, 5),
        ("3:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
    ],
)  # fmt: skip
def test_the_cpu_time_of_a_container_limits_the_cores(
    tmp_path: Path, groups: str, files: dict[str, str], cores: int
) -> None:
    assert cpu_count(system(tmp_path, groups, files)) == cores


@pytest.mark.usefixtures("sixteen_cores")
def test_a_system_without_such_files_uses_the_cores_that_are_given(tmp_path: Path) -> None:
    assert cpu_count(tmp_path) == 16


@pytest.fixture
def group_of_one_core() -> Iterator[Path]:
    group = CPU_CONTROLLER / f"modulab-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        (group / "cpu.cfs_quota_us").write_text("100000")
        yield group
    except OSError as error:
        pytest.skip(f"CPU time cannot be limited here: {error}")
    finally:
        group.rmdir()


@pytest.mark.skipif(GIVEN < 2, reason="a limit of one core shows only where there are two")
def test_a_real_limit_is_seen(group_of_one_core: Path) -> None:
    enter = f"import os; open({str(group_of_one_core / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); "
    count = "from modulab.cores import cpu_count; print(cpu_count())"
    found = subprocess.run([sys.executable, "-c", enter + count], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"
    assert cpu_count() == GIVEN
