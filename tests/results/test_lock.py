from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modulab.errors import ConfigError
from modulab.results.lock import LOCK, FolderLock

HOLD = (
    "import sys; from pathlib import Path; from modulab.results.lock import FolderLock\n"
    "lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)


def test_second_process_is_told_who_is_at_work_and_gets_the_folder_when_the_first_is_killed(
    tmp_path: Path,
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"process {holder.pid} on .+, since .+ is using this folder"):
            FolderLock(tmp_path)
        holder.send_signal(signal.SIGKILL)
    with FolderLock(tmp_path):
        pass


def test_lock_is_free_again_after_release(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(ConfigError, match="is using this folder"):
        FolderLock(tmp_path)
    FolderLock(tmp_path).release()


def test_holder_that_left_no_name_is_another_process(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        (tmp_path / LOCK).write_text("")
        with pytest.raises(ConfigError, match="another process is using"):
            FolderLock(tmp_path)


WRITE_FOR_EVER = (
    "import sys, tempfile\nfrom pathlib import Path\nfrom modulab.results.files import process_mark, replacing\n"
    "folder = Path(sys.argv[1])\n"
    "with replacing(folder / 'parts' / 'x.parquet') as beside:\n"
    "    beside.write_text('half')\n"
    "    tempfile.mkdtemp(suffix=f'.{process_mark()}', prefix='.', dir=folder)\n"
    "    print(flush=True)\n"
    "    sys.stdin.read()"
)


def test_what_a_killed_process_left_unfinished_is_removed_and_what_others_write_is_not(
    tmp_path: Path,
) -> None:
    def hidden() -> int:
        return sum(path.name.startswith(".") and path.name != LOCK for path in tmp_path.rglob("*"))

    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        FolderLock(tmp_path).release()
        assert hidden() == 2
        writer.send_signal(signal.SIGKILL)
    (tmp_path / ".elsewhere.12.unfinished").touch()
    FolderLock(tmp_path).release()
    assert hidden() == 1


def test_lock_withdrawn_from_an_empty_folder_is_no_file_and_may_be_taken_again(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.withdraw()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "results").touch()
    with FolderLock(tmp_path) as lock:
        lock.withdraw()
    assert (tmp_path / LOCK).exists()
