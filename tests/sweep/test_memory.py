from collections.abc import Iterator
from pathlib import Path

import pytest

from modulab.memory import check_plan, free_bytes
from tests.command_line import Command
from tests.forked_calls import Calls, forked_calls

GIB = 2**30


def machine(root: Path, groups: str = "", **files: str) -> Path:
    """Write the files that Linux answers with: 8 GiB available, and what `files` holds below sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: {10 * GIB // 1024} kB\nMemAvailable: {8 * GIB // 1024} kB\n"
    )
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_container_the_machine_counts(tmp_path: Path) -> None:
    assert free_bytes(machine(tmp_path)) == 8 * GIB


def test_a_limit_of_a_container_counts_less_what_is_used_and_not_only_cached(tmp_path: Path) -> None:
    found = machine(
        tmp_path, "0::/job/step\n",
        job__step__memory_DOT_max="max\n", job__step__memory_DOT_current="5\n",
        job__memory_DOT_max=f"{4 * GIB}\n", job__memory_DOT_current=f"{3 * GIB}\n",
        job__memory_DOT_stat=f"anon 1\ninactive_file {GIB}\n",
    )  # fmt: skip
    assert free_bytes(found) == 2 * GIB


def test_limits_of_the_older_kind_count_too(tmp_path: Path) -> None:
    limits = {
        "memory__job__memory.limit_in_bytes": f"{2 * GIB}\n", "memory__job__memory.usage_in_bytes": f"{GIB}\n",
        "memory__memory.limit_in_bytes": "9223372036854771712\n", "memory__memory.usage_in_bytes": f"{9 * GIB}\n",
    }  # fmt: skip
    assert free_bytes(machine(tmp_path, "3:cpu:/\n2:memory,other:/job\n", **limits)) == GIB


def test_a_system_that_says_nothing_sets_no_limit(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) == float("inf")


def test_a_plan_of_any_size_that_fits_is_let_through() -> None:
    check_plan(1000, "this")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["architecture.width=100000000"], "architecture.width=100000000"),
        (["architecture.depth=2000", "architecture.width=3000"], "architecture.depth=2000"),
        (["data.num_samples=2000000000"], "data.num_samples=2000000000"),
        (["training.batch_size=2000000000"], "training.batch_size=2000000000"),
        (["population.seeds=1000000000"], "1,000,000,000 networks"),
        (["-m", "seed=range(2000)", "noise.scale=range(0,1,0.001)"], "jobs"),
        (["training.curve_every=1000000000000000000000"], "training.curve_every"),
        (["task.modules=3000000000"], "task.modules"),
        (["task.modules=100000"], "task.modules=100000"),
    ],
)
def test_what_cannot_fit_is_refused_with_its_size(command: Command, overrides: list[str], named: str) -> None:
    code, _, err = command("train", *overrides, "hydra.run.dir=run")
    assert code == 2
    assert err.startswith("error: ")
    assert named in err
    assert len(err.splitlines()) == 1


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    """Give calls that return a process's peak of memory and what it was estimated at, in MiB."""
    with pytest.MonkeyPatch.context() as patch:
        # What is estimated includes the compiler, which an earlier command's code would make needless.
        patch.setenv("MODULAB_CACHE_DIR", str(tmp_path_factory.mktemp("empty_cache")))
        with forked_calls("tests.peak_memory") as calls:
            yield calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "overrides"),
    [
        ("eager", "training.steps=4"),
        ("native", "training.steps=400 population.seeds=256 training.curve_every=200"),
        ("eager", "training.steps=6 population.seeds=64 architecture.width=512"),
        ("compiled", "training.steps=6 population.seeds=64 architecture.width=512"),
        (
            "eager",
            "training.steps=6 population.seeds=16 architecture.width=256 architecture.depth=3 task.modules=4",
        ),
        (
            "eager",
            "training.steps=4 population.seeds=4 training.batch_size=8192 architecture.width=256 noise.scale=0.2",
        ),
        (
            "eager",
            "training.steps=6 population.seeds=24 task.modules=6 architecture.width=144 regulariser=activity_weight "
            "regulariser.strength=0.01",
        ),
        ("eager", "training.steps=6 population.seeds=64 data.num_samples=100000"),
        (
            "eager",
            "training.steps=4 population.seeds=2 data.num_samples=100000 task=digits task.mixing=true "
            "training.batch_size=16 architecture.width=8",
        ),
        (
            "native",
            "training.steps=400 training.curve_every=200 population.seeds=64 data.num_samples=null",
        ),
    ],
)
def test_peak_of_memory_is_within_what_populations_are_cut_by(
    engine: str, overrides: str, calls: Calls
) -> None:
    peak, estimate = calls.call(
        *overrides.split(), f"trainer.engine={engine}", "trainer.threads=2", "probes.num_samples=256"
    )
    assert peak < 1.3 * estimate
    assert estimate < 2.5 * peak  # nor are populations cut far too small


@pytest.mark.slow
def test_large_data_that_a_thousand_networks_share_is_held_and_estimated_once(calls: Calls) -> None:
    tenths = "[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]"
    keys = ("architecture.initial_scale", "training.weight_decay", "regulariser.strength")
    peak, estimate = calls.call(
        f"population.grid={{{', '.join(f'{key}: {tenths}' for key in keys)}}}",
        "regulariser=l2", "task._target_=tests.wide_task.WideTask", "data.num_samples=60000",
        "architecture.width=8", "training.steps=4", "training.batch_size=16",
        "probes.num_samples=64", "probes.repeats=1", "trainer.engine=eager", "trainer.threads=2",
    )  # fmt: skip
    # One copy of the data is 180 MiB.
    assert peak < 1.3 * estimate
    assert estimate < 2000


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "native"])
def test_peak_of_memory_does_not_grow_with_steps(engine: str, calls: Calls) -> None:
    # A step's activities of 24 networks take 1 MiB: kept, they would show after a tenth of these steps. The points of
    # the curves are as many in both, for their table takes memory of its own.
    points, short, long = {"eager": (10, 10, 50), "native": (80, 20, 250)}[engine]

    def peak(steps_a_point: int) -> float:
        return calls.call(
            f"training.steps={points * steps_a_point}",
            f"training.curve_every={steps_a_point}",
            "population.seeds=24",
            f"trainer.engine={engine}",
            "trainer.threads=2",
        )[0]

    assert peak(long) < 1.1 * peak(short)
