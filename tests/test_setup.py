"""./scripts/setup leaves alone what is not its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_linked_environment_is_not_emptied(tmp_path: Path) -> None:
    elsewhere, checkout = tmp_path / "elsewhere", tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("of another checkout")
    shutil.copy(ROOT / "scripts" / "setup", checkout / "scripts")
    shutil.copy(ROOT / "requirements.lock", checkout)
    (checkout / ".venv").symlink_to(elsewhere)
    ended = subprocess.run([checkout / "scripts" / "setup"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ".venv is a link" in ended.stderr
    assert (elsewhere / "kept").exists()
