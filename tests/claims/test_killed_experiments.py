from collections.abc import Sequence
from pathlib import Path

import pytest

from modulab.claims import run
from modulab.claims.run import Experiment, halve_populations, run_experiments
from modulab.results.store import load_results

HUNGRY = """
import os
import signal

from modulab.tasks.regression import RegressionTask


class HungryTask(RegressionTask):
    most: int

    def draw(self, keys, *others, **named):
        if len(keys) > self.most:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().draw(keys, *others, **named)
"""


@pytest.fixture
def hungry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hungry_task.py").write_text(HUNGRY)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def experiment(name: str, folder: Path, most: int) -> Experiment:
    overrides = (
        "task._target_=hungry_task.HungryTask", f"+task.most={most}", "population.seeds=4", "training.steps=4",
        "training.batch_size=8", "architecture.width=4", "probes.num_samples=16",
    )  # fmt: skip
    return Experiment(name, overrides, folder / name)


@pytest.mark.slow
def test_an_experiment_whose_process_is_killed_is_tried_again_in_halves_and_the_others_are_kept(
    hungry: Path,
) -> None:
    experiments = [
        experiment("small", hungry, 100),
        experiment("large", hungry, 2),
        experiment("none", hungry, 0),
    ]
    found, errors = run_experiments(experiments, 2, 1, "off")
    assert sorted(found) == ["large", "small"]
    assert list(errors) == ["none"]
    assert "killed, most likely for lack of memory" in errors["none"]
    columns = ["config.seed", "status", "error/test"]
    one, other = (
        load_results(hungry / name)[columns].sort_values("config.seed") for name in ("small", "large")
    )
    assert one.to_numpy().tolist() == other.to_numpy().tolist()


def test_a_folder_in_which_nothing_was_begun_cannot_be_halved(tmp_path: Path) -> None:
    assert halve_populations(tmp_path) is None


@pytest.mark.parametrize(
    ("longest", "parts"),
    [
        (3.0, [(["long", "short", "shorter", "new"], 2)]),
        (3.1, [(["long"], 1), (["short", "shorter", "new"], 2)]),  # alone with all cores, while others wait
    ],
)
def test_what_took_longest_before_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: float, parts: list[tuple[list[str], int]]
) -> None:
    spent = {"shorter": 1.0, "new": 0.0, "long": longest, "short": 2.0}
    ran: list[tuple[list[str], int]] = []

    def note(
        experiments: Sequence[Experiment], at_once: int, *_: object
    ) -> tuple[dict[str, list[str]], dict[str, str]]:
        names = [each.name for each in experiments]
        ran.append((names, at_once))
        return {name: [name] for name in names}, {}

    def seconds(folder: Path) -> float:
        return spent[folder.name]

    monkeypatch.setattr(run, "seconds_spent", seconds)
    monkeypatch.setattr(run, "run_experiments", note)
    found, errors = run.run_on_this_machine(
        [Experiment(name, (), tmp_path / name) for name in spent], 2, "off"
    )
    assert ran == parts
    assert (found, errors) == ({name: [name] for name in spent}, {})
    monkeypatch.undo()
    assert run.seconds_spent(tmp_path / "new") == 0
