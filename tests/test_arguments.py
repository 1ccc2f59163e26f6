"""What a command does not know is answered in one line, with how to say it instead."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest
from given_overrides import answer, read_given

from modulab.arguments import ArgumentParser
from modulab.cli import COMMANDS
from tests.command_line import Command

ROOT = Path(__file__).parents[1]

ANSWERED = [
    ("claims C5", "modulab claims: C5 is one argument too many. Did you mean --only C5?"),
    ("claims c6a", "Did you mean --only C6a?"),
    ("claims --C5", "modulab claims: there is no option --C5. Did you mean --only C5?"),
    ("claims qick", "Did you mean --preset quick?"),
    ("claims preset=smoke", "Did you mean --preset smoke?"),
    ("claims --prest smoke", "there is no option --prest. Did you mean --preset PRESET?"),
    ("claims noise.scale=0", "Settings are given to modulab train, as in modulab train noise.scale=0."),
    ("claims --noise.scale 0", "Settings are given to modulab train, as in modulab train noise.scale=0."),
    ("claims --only", "--only: a value is missing. It means: claims to test, separated by commas"),
    ("claims --processes x", "--processes: x is not a whole number of 1 or more."),
    ("claims --map=3", "--map takes no value."),
    ("table", "modulab table: PATH is missing: folders that modulab train wrote, or files."),
    ("table a --bby seed", "there is no option --bby. Did you mean --by KEYS?"),
    ("table a --m x", "ambiguous option: --m could match --metric, --markdown."),
    ("table a --ascending --descending", "--descending and --ascending do not go together."),
    (
        "export a b",
        "b is one argument too many. It takes one PATH, in quotes if it holds spaces. Its options: --to FOLDER",
    ),
    ("rerun a", "modulab rerun: --member is missing: the row's number, from 0"),
    ("rerun a 5", "Did you mean --member 5?"),
    ("rerun a member=5", "Did you mean --member 5?"),
    ("log a", "modulab log: OVERRIDE is missing: logger=wandb"),
    ("dashboard a --jason", "there is no option --jason. Did you mean --json?"),
    ("list task noise", "Did you mean modulab list noise?"),
    ("list --task", "there is no option --task. Did you mean modulab list task?"),
    ("init a b", "b is one argument too many. It takes one FOLDER, in quotes if it holds spaces. It has no options."),
    ("clean --force", "there is no option --force. Its options: --yes."),
    ("clean a b", "b is one argument too many."),
    ("export a safetensors", "Did you mean --format safetensors?"),
    ("export a --to=", "--to: it is empty. Name a folder or file"),
    ("analyse a cut", "--with is missing: analyses, separated by commas. Did you mean --with cut?"),
    ("analyse a --cut", "there is no option --cut. Did you mean --with cut?"),
    ("train --seeds 4", "Did you mean 'population.seeds'?"),
    ("train --noise.scale 0.2", "Did you mean noise.scale=0.2?"),
    ("train --mutlirun", "Did you mean --multirun?"),
    ("train noise.scale 0.2", "Did you mean noise.scale=0.2?"),
    ("train noise.scale:0.2", "Did you mean noise.scale=0.2?"),
    ("train noise.scale = 0.2", "without spaces around =."),
    ("train poisson", "Did you mean noise=poisson?"),
    ("train experiment", "It is a group: experiment=NAME, of modulab list experiment."),
    ("train -s", "modulab has no shell completion"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), ANSWERED, ids=[words for words, _ in ANSWERED])
def test_what_a_command_does_not_know_is_answered_with_what_to_write(
    command: Command, words: str, message: str
) -> None:
    code, out, err = command(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("wrong", [["--nope"], ["a", "b", "--nope"], ["--nope=1"]], ids=" ".join)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_names_an_option_that_it_does_not_know(
    command: Command, name: str, wrong: list[str]
) -> None:
    code, out, err = command(name, *wrong)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "--nope" in err
    assert len(err.splitlines()) == 1


SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "scripts").glob("*.py")
    if "read_given(" in path.read_text() and path.stem != "given_overrides"
)


@pytest.mark.parametrize("words", [["--nope"], ["a", "b"]], ids=" ".join)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_names_what_it_does_not_know(
    name: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"scripts/{name}.py", *words])
    assert answer(importlib.import_module(name).main) == 2
    assert re.fullmatch(
        r"error: scripts/\w+: .*(--nope|b is one argument too many)\b.*\n", capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def test_a_script_tells_folder_options_and_settings_apart_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def given(*words: str) -> tuple[Path, int, list[str]]:
        monkeypatch.setattr("sys.argv", ["scripts/x", *words])
        parser = ArgumentParser(prog="scripts/x")
        parser.add_argument("--seeds", type=int, default=16)
        options, overrides = read_given(parser, "outputs/x")
        return options.folder, options.seeds, overrides

    assert given() == (Path("outputs/x"), 16, [])
    assert given("seed=1", "--seeds", "3", "noise.scale=0") == (
        Path("outputs/x"),
        3,
        ["seed=1", "noise.scale=0"],
    )
    assert given("noise.scale=0", "mine", "--seeds=3") == (Path("mine"), 3, ["noise.scale=0"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("scal", "scripts/benchmark: there is no part scal. Did you mean 'scale'?"),
        ("--ony grid", "scripts/benchmark: there is no option --ony. Did you mean --only ONLY?"),
        ("sweep --only grd", "scripts/benchmark sweep: --only: invalid choice: 'grd'"),
        ("check --steps x", "scripts/benchmark check: --steps: 'x' is not a whole number."),
    ],
)
def test_the_benchmark_names_what_it_does_not_know(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = importlib.import_module("benchmark_contenders.__main__").main
    assert answer(lambda: main(words.split())) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize("words", [["noise.scale=1"], ["--nope"], ["a", "b"]], ids=" ".join)
def test_the_demo_refuses_what_it_would_ignore(words: list[str], tmp_path: Path) -> None:
    ended = subprocess.run(
        [ROOT / "scripts" / "demo", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {' '.join(words)}: the demo takes one folder")
