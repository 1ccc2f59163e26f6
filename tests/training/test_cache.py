from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from modulab.text import say_once
from modulab.training.cache import VARIABLES, cache_folder, unsafe_file, unsafe_part

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
STRANGER = 12345


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    say_once.cache_clear()


def test_the_default_is_a_private_folder_in_the_users_cache(tmp_path: Path) -> None:
    folder = cache_folder()
    assert folder == tmp_path / "xdg" / "modulab"
    for each in (folder, folder.parent):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_private_folder_that_is_named_is_used(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "modulab"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o770])
def test_a_folder_that_others_may_write_is_not_used_and_said_once(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = tmp_path / "open" / "modulab"
    inner.mkdir(parents=True)
    inner.chmod(mode)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(inner.parent))
    assert cache_folder() == cache_folder() == tmp_path / "xdg" / "modulab"
    assert capsys.readouterr().err.count(f"{inner} is not used") == 1


def test_where_the_default_is_not_private_this_process_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xdg").mkdir()
    (tmp_path / "xdg").chmod(0o777)
    folder = cache_folder()
    assert not folder.is_relative_to(tmp_path / "xdg")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert cache_folder() == folder


def test_a_folder_in_a_sticky_one_is_safe_and_links_are_followed(tmp_path: Path) -> None:
    sticky, plain = tmp_path / "sticky", tmp_path / "plain"
    for folder, mode in ((sticky, 0o1777), (plain, 0o777)):
        (folder / "own").mkdir(parents=True)
        folder.chmod(mode)
    assert unsafe_part(sticky / "own") is None
    assert str(plain) in str(unsafe_part(plain / "own"))
    for target, safe in ((sticky / "own", True), (plain / "own", False)):
        for place, link_safe in ((tmp_path, True), (sticky, True), (plain, False)):
            link = place / "link"
            link.symlink_to(target)
            assert (unsafe_part(link) is None) == (safe and link_safe)
            link.unlink()
    (tmp_path / "relative").symlink_to("sticky/../plain/own")
    assert str(plain) in str(unsafe_part(tmp_path / "relative"))


def test_a_chain_of_links_without_end_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match="symbolic links"):
        unsafe_part(tmp_path / "one")


@as_root
def test_what_another_user_owns_is_not_safe(tmp_path: Path) -> None:
    sticky = tmp_path / "sticky"
    (sticky / "own").mkdir(parents=True)
    sticky.chmod(0o1777)
    (sticky / "link").symlink_to(sticky / "own")
    os.lchown(sticky / "link", STRANGER, STRANGER)
    assert "link of another user" in str(unsafe_part(sticky / "link"))
    os.chown(sticky / "own", STRANGER, STRANGER)
    assert "another user" in str(unsafe_part(sticky / "own"))


def test_a_file_must_be_regular_and_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for mode, safe in ((0o700, True), (0o644, True), (0o664, False), (0o666, False)):
        file.chmod(mode)
        with file.open("rb") as opened:
            assert (unsafe_file(opened.fileno()) is None) == safe
    with Path("/dev/null").open("rb") as device:
        assert unsafe_file(device.fileno()) is not None
