"""Reading a folder of results that somebody else made: it is data, whatever it names and wherever its links lead."""

import gzip
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import modulab
from modulab.cli import main
from modulab.config.identity import run_id
from modulab.config.trust import check_named_code, shipped_code
from modulab.errors import ConfigError
from modulab.results.manifest import read_manifests
from modulab.results.store import load_curves, load_results

EVIL = """
from pathlib import Path

Path(r"{mark}").touch()


def measure(probe):
    raise SystemExit("called")


Task = measure
"""

FEW_MEASURES = [
    f"probes.measures.{name}=null"
    for name in ("frame_null", "functional_centred", "unit_specialisation", "ablation", "poisson_energy",
                 "multiplicative", "poisson_counts", "weight_noise", "input_noise", "ablated_units")
]  # fmt: skip
"""Of each kind of figure in a report, fewer panels."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "results"
    modulab.train(
        ["population.seeds=2", "training.steps=4", "training.curve_every=2", "training.batch_size=8",
         "architecture.width=4", "probes.num_samples=16", "probes.repeats=1", "probes.levels=[0.1,0.3]",
         "probes.ablated_fractions=[0.1]", "probes.ranges=[2.0]", *FEW_MEASURES, "trainer.progress=off"],
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


def write_hydras_command(folder: Path, content: str) -> None:
    """Leave a folder Hydra's own record of a command alone."""
    (folder / "commands.jsonl").unlink()
    (folder / "multirun.yaml").write_text(content)


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
    [members] = modulab.load_members(".")
    for rebuild in (members.members, members.population, members.measures):
        with pytest.raises(ConfigError, match="evil_module"):
            rebuild()
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


@pytest.mark.parametrize("name", ["csv", "report", "logged", "parts", "populations/sub", "wandb"])
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
    for name, value in (("status", "failed"), ("error", "\x1b[2J[/red]")):
        change_table(hostile / "results.parquet", fill(name, value))
    assert main(["table", str(hostile)]) == 0
    printed = capsys.readouterr().out
    assert "\\x1b[2J[/red]" in printed
    assert "\x1b" not in printed


def drop(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def fill(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        return table.set_column(place, name, pa.array([value] * table.num_rows))

    return change


def change_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite a file of results as another program, or an earlier version, could have: without any hash."""
    table = pq.read_table(path)
    format_only = {b"modulab.format": table.schema.metadata[b"modulab.format"]}
    pq.write_table(change(table).replace_schema_metadata(format_only), path)


def change_checkpoint(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    [path] = (folder / "populations").glob("*.ckpt")
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def write_ledger(folder: Path, text: str) -> None:
    (folder / "logged").mkdir()
    (folder / "logged" / "csv.jsonl").write_text(text)


TABLES = {
    "no status": ("results", drop("status")),
    "no reason": ("results", drop("error")),
    "no engine": ("results", drop("engine")),
    "no seed": ("results", drop("config.seed")),
    "no rows": ("results", lambda table: table.slice(0, 0)),
    "a measure is text": ("results", fill("error/test", "x")),
    "a status is a number": ("results", fill("status", 3)),
    "a measure is infinite": ("results", fill("error/test", float("inf"))),
    "a measure is enormous": ("results", fill("error/test", 1e308)),
    "a curve is infinite": ("curves", fill("value", float("inf"))),
    "a curve is enormous": ("curves", fill("value", 1e308)),
    "a curve is text": ("curves", fill("value", "x")),
    "curves have no step": ("curves", drop("step")),
}
OTHERS: dict[str, Callable[[Path], object]] = {
    "a checkpoint has no state": lambda folder: change_checkpoint(
        folder, lambda each: each.pop("state_dict")
    ),
    "a checkpoint has no layout": lambda folder: change_checkpoint(
        folder, lambda each: each["modulab"].pop("layout")
    ),
    "a layout is a word": lambda folder: change_checkpoint(
        folder, lambda each: each["modulab"].update(layout="layout")
    ),
    "a layout is too short": lambda folder: change_checkpoint(
        folder, lambda each: each["modulab"]["layout"].pop()
    ),
    "a layout has a negative size": lambda folder: change_checkpoint(
        folder, lambda each: each["modulab"]["layout"][0].__setitem__(1, [-1, -2])
    ),
    "a row has no member": lambda folder: change_checkpoint(
        folder, lambda each: each["modulab"].update(row_of_member=torch.tensor([99]))
    ),
    "a checkpoint holds a list": lambda folder: change_checkpoint(
        folder, lambda each: each.update(modulab=[])
    ),
    "a manifest lacks a group": lambda folder: rewrite_manifest(folder, lambda config: config.pop("task")),
    "a command is cut": lambda folder: write_hydras_command(folder, "hydra: {overrides"),
    "the list of commands is cut": lambda folder: (folder / "commands.jsonl").write_text('{"command": '),
    "the list of commands holds a number": lambda folder: (folder / "commands.jsonl").write_text("3\n"),
    "a command is empty": lambda folder: write_hydras_command(folder, ""),
    "a ledger has a bad line": lambda folder: write_ledger(folder, "{bad\n"),
    "a ledger has no pair": lambda folder: write_ledger(folder, "3\n"),
    "a ledger has a list for a name": lambda folder: write_ledger(folder, "[[1], 2]\n"),
}


def damage(folder: Path, kind: str) -> None:
    if kind in OTHERS:
        OTHERS[kind](folder)
        return
    name, change = TABLES[kind]
    change_table(folder / f"{name}.parquet", change)


@pytest.mark.parametrize("kind", [*TABLES, *OTHERS])
def test_damaged_folders_end_in_a_result_or_in_one_sentence(
    hostile: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(hostile, kind)
    path = str(hostile)
    for command in (["table", path], ["log", path, "logger=csv"], ["dashboard", path, "--json"]):
        code = main(command)
        said = capsys.readouterr().err
        assert code == 0 or (code == 2 and said.count("error: ") == 1), (command, code, said)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*TABLES, *(kind for kind in OTHERS if "ledger" not in kind)])
def test_damaged_folders_are_reported_and_repeated_or_refused(
    hostile: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(hostile, kind)
    for command in (["report", str(hostile)], ["rerun", str(hostile), "--member", "0"]):
        code = main(command)
        said = capsys.readouterr().err
        assert code in (0, 1) or (code == 2 and said.count("error: ") == 1), (command, code, said)


@pytest.mark.parametrize(
    "pattern", ["results.parquet", "curves.parquet", "populations/*.ckpt", "populations/*.gz"]
)
def test_a_flipped_bit_changes_no_number_in_silence(finished: Path, hostile: Path, pattern: str) -> None:
    def read(folder: Path) -> str:
        if pattern.endswith(".ckpt"):
            [members] = modulab.load_members(folder)
            return str([weight.tolist() for weight in members.weights.values()]) + str(members.configs)
        if pattern.endswith(".gz"):
            return str([configs for _, configs in read_manifests(folder)])
        load = load_curves if pattern.startswith("curves") else load_results
        return load(folder).to_csv()

    [path] = hostile.glob(pattern)
    content, expected = path.read_bytes(), read(finished)
    draw = random.Random(0)
    for _ in range(60):
        changed = bytearray(content)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            assert read(hostile) == expected
        except ConfigError:
            continue
