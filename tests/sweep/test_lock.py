from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modulab.errors import ConfigError
from modulab.sweep.lock import LOCK, FolderLock

HOLD = (
    "import sys; from pathlib import Path; from modulab.sweep.lock import FolderLock\n"
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
        with pytest.raises(
            ConfigError, match=rf"process {holder.pid} on .+, since .+ is at work in this folder"
        ):
            FolderLock(tmp_path)
        holder.send_signal(signal.SIGKILL)
    with FolderLock(tmp_path):
        pass


def test_lock_is_free_again_after_release(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(ConfigError, match="at work"):
        FolderLock(tmp_path)
    FolderLock(tmp_path).release()


def test_holder_that_left_no_name_is_another_process(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        (tmp_path / LOCK).write_text("")
        with pytest.raises(ConfigError, match="another process is at work"):
            FolderLock(tmp_path)
