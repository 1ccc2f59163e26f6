"""Kills a sweep with SIGKILL again and again, each time resuming it, and prints what became of it as JSON.

Run as a script: processes are forked from one that has imported everything, so that a start costs little. A
first series of kills strikes at random times, a second one at each place where a file is put in its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import modulab.sweep.jobs
import modulab.sweep.run  # noqa: F401 imported for the processes that are forked: it takes longer than the sweep
from modulab.cli import main
from modulab.results.store import load_curves, load_results, statuses


def fork(work: Callable[[], int]) -> int:
    """Run something in a process of its own, quietly, and return its id."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        os._exit(work())
    return child


def exit_code(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def done(folder: Path) -> set[str]:
    """Return the members that a folder has results of, read as a user would at any moment."""
    return {run_id for run_id, status in statuses(folder).items() if status == "completed"}


def files(folder: Path) -> int:
    """Return how many files populations have left so far, a measure of how far a sweep is."""
    return sum(len(list(folder.glob(pattern))) for pattern in ("populations/[!.]*", "parts/[!.]*"))


def alive(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def kill_at_random_times(command: list[str], folder: Path, kills: int, seed: int) -> dict[str, object]:
    generator = random.Random(seed)
    finish(command, Path(f"{folder}-whole"))
    struck, lost, before = 0, 0, set[str]()
    seen: list[int] = []
    while struck < kills:
        # A little after the next file or a later one, so that kills strike at all stages on any machine.
        target = files(folder) + generator.randint(0, 4)
        process = fork(lambda folder=folder: main([*command, f"hydra.sweep.dir={folder}"]))
        while alive(process) and files(folder) < target:
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.05))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        struck += exit_code(process) == -signal.SIGKILL
        now = done(folder) if folder.exists() else set[str]()
        lost += len(before - now)
        before = now
        seen.append(len(now))
        if len(now) == len(done(Path(f"{folder}-whole"))):
            # Nothing left to kill: on to a new folder; this one is compared at the end.
            folder = folder.with_name(f"{folder.name}x")
            before = set()
    return {"struck": struck, "lost": lost, "seen": seen}


def finish(command: list[str], folder: Path) -> None:
    assert exit_code(fork(lambda: main([*command, f"hydra.sweep.dir={folder}"]))) == 0


def kill_at_every_write(command: list[str], folder: Path) -> dict[str, object]:
    """Kill right before the n-th file is put in its place, in a new folder for every n there is."""
    struck = lost = 0
    while True:
        target = folder.with_name(f"{folder.name}-{struck}")
        process = fork(lambda number=struck, target=target: _die_at_write(command, target, number))
        code = exit_code(process)
        if code == 0:
            return {"struck": struck, "lost": lost}
        assert code == -signal.SIGKILL, code
        struck += 1
        before = done(target)
        finish(command, target)
        lost += len(before - done(target))


def _die_at_write(command: list[str], folder: Path, number: int) -> int:
    replace = Path.replace
    left = number

    def counted(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return replace(self, target)

    Path.replace = counted  # type: ignore[method-assign]
    return main([*command, f"hydra.sweep.dir={folder}"])


def differences(folder: Path, whole: Path) -> list[str]:
    """Return which columns of two tables are not the same bits, and whether files are left over."""
    one, other = (load_results(path).set_index("run_id").sort_index() for path in (folder, whole))
    found = [] if one.index.equals(other.index) else ["run_id"]
    found += [
        name for name in other if name != "seconds" and not (name in one and one[name].equals(other[name]))
    ]
    curves = [load_curves(path) for path in (folder, whole)]
    ordered = [table.sort_values(["run_id", "measure", "step"], ignore_index=True) for table in curves]
    found += [] if ordered[0].equals(ordered[1]) else ["curves"]
    return found + [str(path) for path in folder.glob("parts/[!.]*")]


if __name__ == "__main__":
    torch.set_num_threads(1)
    base, kills = Path(sys.argv[1]), int(sys.argv[2])
    words = ["train", "-m", *sys.argv[3:]]
    random_report = kill_at_random_times(words, base / "random", kills, seed=0)
    # Two populations of one member show every kind of write.
    few = [word.replace("seed=range(3)", "seed=0") for word in words]
    write_report = kill_at_every_write(few, base / "writes")
    finish(few, base / "writes-whole")
    for path in base.glob("random*"):
        finish(words, path)
    unequal = {
        path.name: found
        for path in sorted(base.iterdir())
        if (
            found := differences(
                path, base / f"{'writes' if path.name.startswith('writes') else 'random'}-whole"
            )
        )
    }
    print(json.dumps({"random": random_report, "writes": write_report, "unequal": unequal}))
