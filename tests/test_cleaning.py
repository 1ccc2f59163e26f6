"""`modulab clean` shows what can go, and removes no result and no checkpoint that has something to go on from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from modulab.cleaning import clean
from modulab.errors import ConfigError
from modulab.results.files import write_whole
from modulab.results.lock import FolderLock
from modulab.results.manifest import checkpoint_path, write_manifest
from modulab.results.store import gather, save_part

ONE, TWO = "1" * 16, "2" * 16


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of compiled steps, with one in it."""
    monkeypatch.setenv("MODULAB_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "modulab"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "step.so").write_bytes(b"x" * 2048)
    return folder


def population(folder: Path, name: str, status: str, skipped: str = "") -> Path:
    """Write the results, manifest and checkpoint of a population of one; return the checkpoint."""
    (folder / "populations").mkdir(parents=True, exist_ok=True)
    row = {
        "run_id": name,
        "status": status,
        "error": None,
        "seconds": 1.0,
        "skipped": skipped,
        "config.seed": 0,
    }
    save_part(folder, name, pa.Table.from_pylist([row]))
    gather(folder)
    write_manifest(folder, {name: {"seed": 0}})
    checkpoint = checkpoint_path(folder, [name])
    write_whole(checkpoint, b"w" * 1024)
    return checkpoint


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


def test_nothing_is_removed_unless_asked(tmp_path: Path, cache: Path, outputs: Path) -> None:
    population(outputs / "a", ONE, "completed")
    before = files(tmp_path)
    said = "\n".join(clean(None, remove=False))
    assert files(tmp_path) == before
    assert "compiled steps: 1 file, 2 KiB" in said
    assert "outputs/a: 1 file, 1 KiB" in said
    assert "To remove 2 files, 3 KiB, add --yes" in said


def test_only_compiled_steps_and_checkpoints_of_finished_folders_are_removed(
    tmp_path: Path, cache: Path, outputs: Path
) -> None:
    done = population(outputs / "done", ONE, "completed")
    half = [population(outputs / "half", ONE, "completed"), population(outputs / "half", TWO, "failed")]
    before = files(tmp_path)
    clean(None, remove=True)
    assert before - files(tmp_path) == {done, cache / "step.so"}
    assert all(path.exists() for path in half)


def test_a_folder_that_is_named_is_cleaned_alone(tmp_path: Path, cache: Path) -> None:
    done = population(tmp_path / "runs" / "done", ONE, "completed")
    other = population(tmp_path / "others" / "done", ONE, "completed")
    before = files(tmp_path)
    clean(tmp_path / "runs", remove=True)
    assert before - files(tmp_path) == {done}
    assert other.exists()
    assert (cache / "step.so").exists()
    assert clean(tmp_path / "runs", remove=False)[-1] == "Nothing to remove."
    with pytest.raises(ConfigError, match="is not a folder"):
        clean(tmp_path / "run", remove=True)


def test_a_checkpoint_of_members_without_rows_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    done = population(folder, ONE, "completed")
    write_manifest(folder, {TWO: {"seed": 1}})
    write_whole(waiting := checkpoint_path(folder, [TWO]), b"w")
    clean(tmp_path / "runs", remove=True)
    assert waiting.exists()
    assert not done.exists()


def test_a_folder_is_held_while_its_checkpoints_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = population(tmp_path / "runs" / "a", ONE, "completed")
    unlink, refused = Path.unlink, list[str]()

    def watched(path: Path, missing_ok: bool = False) -> None:
        if path == done:
            with pytest.raises(ConfigError, match="is using this folder") as raised:
                FolderLock(done.parents[1])
            refused.append(str(raised.value))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    clean(tmp_path / "runs", remove=True)
    assert len(refused) == 1
    assert not done.exists()
    FolderLock(done.parents[1]).release()


def test_checkpoints_of_a_folder_at_work_are_kept_and_those_of_others_removed(tmp_path: Path) -> None:
    busy, done = (population(tmp_path / "runs" / name, ONE, "completed") for name in "ab")
    with FolderLock(busy.parents[1]):
        said = clean(tmp_path / "runs", remove=True)
    assert busy.exists()
    assert not done.exists()
    assert "is using this folder" in said[0]
    assert said[-1] == "Removed 1 file, 1 KiB."
