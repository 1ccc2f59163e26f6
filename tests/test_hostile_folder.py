"""Reading a folder of results that somebody else made: it is data, whatever it names and wherever its links lead."""

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import modulab
from modulab.cli import main
from modulab.composing import run_id
from modulab.errors import ConfigError
from modulab.sweep.manifest import read_manifests
from modulab.trust import check_named_code, shipped_code

EVIL = """
from pathlib import Path

Path(r"{mark}").touch()


def measure(probe):
    raise SystemExit("called")


Task = measure
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "results"
    modulab.train(
        ["population.seeds=2", "training.steps=4", "training.batch_size=8", "architecture.width=4",
         "probes.num_samples=16", "trainer.progress=off"],
        folder,
    )  # fmt: skip
    return folder


@pytest.fixture
def hostile(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "results"))


def rewrite_manifest(folder: Path, change: Callable[[dict[str, dict]], object]) -> list[str]:
    """Change the configs of a manifest, and the names in the table with them, so that every hash fits."""
    [(path, configs)] = read_manifests(folder)
    for config in configs.values():
        change(config)
    path.write_bytes(gzip.compress(json.dumps({run_id(each): each for each in configs.values()}).encode()))
    return [run_id(each) for each in configs.values()]


def plant(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a module beside the results, which says when it is imported, and make it importable."""
    mark = folder.parent / "imported"
    (folder / "evil_module.py").write_text(EVIL.format(mark=mark))
    sys.modules.pop("evil_module", None)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    return mark


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["task"].update(_target_="evil_module.Task"),
        lambda config: config["regulariser"].update(_target_="evil_module.Task"),
        lambda config: config["probes"]["measures"].update(evil="evil_module.measure"),
    ],
)
def test_reading_imports_nothing_that_a_folder_names(
    hostile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, dict]], object],
) -> None:
    import pyarrow.parquet as pq

    mark = plant(hostile, monkeypatch)
    names = rewrite_manifest(hostile, change)
    table = pq.read_table(hostile / "results.parquet")
    place = table.column_names.index("run_id")
    pq.write_table(table.set_column(place, "run_id", [names]), hostile / "results.parquet")
    assert main(["table", "."]) == 0
    assert main(["report", "."]) == 0
    assert main(["log", ".", "logger=csv"]) == 0
    assert main(["rerun", ".", "--member", "0"]) == 2
    assert "--import evil_module" in capsys.readouterr().err
    modulab.load_results(".")
    modulab.load_members(".")
    assert not mark.exists()
    assert main(["rerun", ".", "--member", "0", "--import", "evil_module"]) in (1, 2)
    assert mark.exists(), "the user's own word counts"


def test_code_that_shipped_configs_name_is_known_and_other_code_of_modulab_is_not() -> None:
    assert "modulab.tasks.regression.RegressionTask" in shipped_code()
    check_named_code({"task": {"_target_": "modulab.tasks.regression.RegressionTask"}}, Path("file"))
    for path in ("modulab.cli.main", "os.system", "mine_too.Task", 3):
        with pytest.raises(ConfigError, match="_target_"):
            check_named_code({"task": {"_target_": path}}, Path("file"), ["mine"])
    check_named_code({"task": {"_target_": "mine.tasks.Task"}}, Path("file"), ["mine"])


@pytest.mark.parametrize("name", ["csv", "report", "logged", "parts", "populations/sub"])
def test_nothing_is_written_through_links_that_lead_out_of_a_folder(
    hostile: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (hostile / name).symlink_to(elsewhere)
    for command in (["log", str(hostile), "logger=csv"], ["report", str(hostile)]):
        assert main(command) == 2
        assert "leads out of" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="leads out of"):
        modulab.train(["training.steps=4"], hostile)
    assert not list(elsewhere.iterdir())


def test_a_lock_that_is_a_link_leaves_what_it_leads_to(hostile: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (hostile / ".lock").unlink(missing_ok=True)
    (hostile / ".lock").symlink_to(victim)
    assert main(["log", str(hostile), "logger=csv"]) == 2
    assert victim.read_text() == "precious"


def test_control_sequences_of_a_failed_row_do_not_reach_the_terminal(
    hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(hostile / "results.parquet")
    count = table.num_rows
    for name, values in (("status", ["failed"] * count), ("error", ["\x1b[2J[/red]"] * count)):
        place = table.column_names.index(name)
        table = table.set_column(place, name, [pa.array(values, pa.string())])
    pq.write_table(table, hostile / "results.parquet")
    assert main(["table", str(hostile)]) == 0
    printed = capsys.readouterr().out
    assert "\\x1b[2J[/red]" in printed
    assert "\x1b" not in printed
