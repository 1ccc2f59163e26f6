"""The Python interface: settings as values, what calls return, and errors in the words of a call."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

import modulab
from modulab.config.python_values import grid_override, overrides_of
from modulab.returned import Table, Verdicts, WrittenPage, html_table
from tests.command_line import SMALL, Command

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="ascii")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.from_regex(r"[a-z]+(\.[a-z]+)?", fullmatch=True), inner, min_size=1, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=40)
@given(VALUES)
def test_hydra_reads_a_written_value_as_the_value_that_was_given(value: Any) -> None:
    [override] = overrides_of({"population.grid": value}, {})
    read = OverridesParser.create().parse_override(override)
    assert not read.is_sweep_override()
    assert read.value() == value
    assert type(read.value()) is type(value)


def test_arrays_and_numbers_of_numpy_are_lists_and_numbers() -> None:
    given = {
        "a.b": np.float32(0.5),
        "a.c": np.arange(3),
        "a.d": (True, None),
        "a.e": range(2),
        "a.f": Path("x/y"),
    }
    assert overrides_of(given, {}) == ["a.b=0.5", "a.c=[0,1,2]", "a.d=[true,null]", "a.e=[0,1]", "a.f=x/y"]


def test_nested_dictionaries_and_keywords_are_dotted_keys_after_the_overrides() -> None:
    assert overrides_of("seed=1", {"noise": {"scale": 0.2}}) == ["seed=1", "noise.scale=0.2"]
    nested = {"noise": "poisson", "task": {"modules": 3, "name": "3"}, "+probes.measures": {"mine": "a.b"}}
    expected = ["noise=poisson", "task.modules=3", "task.name='3'", "+probes.measures.mine=a.b"]
    assert overrides_of(nested, {}) == expected
    assert grid_override({"noise": {"scale": [0, 0.1]}, "data.num_samples": 8}) == (
        "population.grid={noise.scale:[0,0.1],data.num_samples:[8]}"
    )


def test_the_interface_is_all_that_is_shown_and_hides_no_package() -> None:
    shown = [name for name in dir(modulab) if not name.startswith("_")]
    assert shown == sorted(modulab.__all__)
    packages = {path.stem for path in Path(modulab.__file__).parent.iterdir()}
    assert packages.isdisjoint(shown)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> modulab.Results:
    """Return a grid of two noise scales at three seeds, given as Python values."""
    folder = tmp_path_factory.mktemp("api") / "run"
    return modulab.train_grid({"noise.scale": [0, 0.4]}, SMALL, folder, seeds=3, noise="poisson")


def test_values_and_overrides_name_the_same_networks_which_are_trained_once(
    results: modulab.Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(results.table) == 6
    kept = (results.folder / "results.parquet").stat().st_mtime_ns
    grid = "population.grid={noise.scale: [0, 0.4]}"
    for again in (
        modulab.train([*SMALL, "noise=poisson", grid, "population.seeds=3"], results.folder),
        modulab.train(
            SMALL, results.folder, noise="poisson", population={"grid": {"noise.scale": [0, 0.4]}, "seeds": 3}
        ),
    ):
        pd.testing.assert_frame_equal(again.table, results.table)
    assert (results.folder / "results.parquet").stat().st_mtime_ns == kept


def test_the_folder_keeps_the_command_that_trains_the_same(
    results: modulab.Results, command: Command
) -> None:
    import shlex

    [kept] = [
        json.loads(line)["command"] for line in (results.folder / "commands.jsonl").read_text().splitlines()
    ]
    words = shlex.split(kept)
    assert words[:2] == ["modulab", "train"]
    words = [word.replace(str(results.folder), "again") for word in words[1:]]
    code, _, err = command(*words)
    assert code == 0, err
    assert modulab.load_results("again")["run_id"].tolist() == results.table["run_id"].tolist()


def test_columns_and_curves_are_read_by_name_or_pattern(results: modulab.Results) -> None:
    named = ["error_under/*", "config.noise.scale", "run_id"]
    columns = [*results.table.filter(like="error_under/"), *named[1:]]
    pd.testing.assert_frame_equal(modulab.load_results(results, columns=named), results.table[columns])
    curves, run_id = results.curves, results.table["run_id"][1]
    wanted = curves[(curves["run_id"] == run_id) & (curves["measure"] == "error/test")]
    read = modulab.load_curves(results.folder, run_ids=run_id, metrics="error/*")
    assert len(read) > 1
    pd.testing.assert_frame_equal(read, wanted.reset_index(drop=True))


def test_config_folders_of_a_call_hold_options_for_that_call_alone(tmp_path: Path) -> None:
    (tmp_path / "mine" / "noise").mkdir(parents=True)
    text = "# Mine.\ndefaults:\n  - poisson\n  - _self_\nname: mine\nscale: 0.3\n"
    (tmp_path / "mine" / "noise" / "mine.yaml").write_text(text)
    found = modulab.train(SMALL, tmp_path / "run", config_dirs=[tmp_path / "mine"], noise="mine")
    assert found.table["config.noise.scale"].tolist() == [0.3]
    assert f"--config-dir {tmp_path / 'mine'}" in (tmp_path / "run" / "commands.jsonl").read_text()
    with pytest.raises(modulab.ConfigError, match="noise=mine: there is no such option"):
        modulab.train(SMALL, tmp_path / "other", noise="mine")
    with pytest.raises(modulab.ConfigError, match=r"config_dirs=nowhere: there is no such folder"):
        modulab.train(SMALL, tmp_path / "other", config_dirs="nowhere")


def test_a_summary_has_the_means_of_its_rows_and_differences_of_pairs(results: modulab.Results) -> None:
    table = results.table
    means = table.groupby("config.noise.scale")["error/test"].mean()
    for source in (results, results.folder, str(results.folder), table):
        found = modulab.summary(source, by="noise.scale").frame
        assert found["noise.scale"].tolist() == [0, 0.4]
        assert found["error/test"].tolist() == pytest.approx(means.tolist(), rel=1e-12)
        assert found["error/test.n"].tolist() == [3, 3]
    pairs = table.pivot(index="config.seed", columns="config.noise.scale", values="error/test")
    for baseline in ("noise.scale=0", {"noise.scale": 0}, {"noise.scale": 0.0}):
        found = modulab.summary(results, metrics="error/test", baseline=baseline)
        assert found.frame["error/test"].tolist() == pytest.approx(
            [(pairs[0.4] - pairs[0.0]).mean()], rel=1e-9
        )
        assert "paired by seed" in repr(found)
    ratio = modulab.summary(results, metrics="error/test", baseline="noise.scale=0", ratio=True).frame
    assert ratio["error/test"].tolist() == pytest.approx([np.exp(np.log(pairs[0.4] / pairs[0.0]).mean())])


def test_one_of_several_folders_may_be_the_baseline_of_a_summary(
    results: modulab.Results, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(results.folder, tmp_path / "other"))
    for baseline in (str(other), other):
        found = modulab.summary([results, other], metrics="error/test", baseline=baseline)
        assert found.frame["folder"].unique().tolist() == [str(results.folder)]
        assert found.frame["error/test"].tolist() == [0, 0]
    with pytest.raises(
        modulab.ConfigError, match=rf"as in baseline='noise.scale=0', or one of .* and {other}\."
    ):
        modulab.summary([results, other], baseline="nowhere")


def test_rows_of_a_table_may_be_left_out_of_a_summary(results: modulab.Results) -> None:
    some = results.table.query("`config.seed` < 2").reset_index(drop=True)
    assert modulab.summary(some).frame["completed"].tolist() == [2, 2]


def test_members_are_chosen_as_rows_and_give_the_outputs_that_were_measured(results: modulab.Results) -> None:
    [whole] = modulab.load_members(results)
    table = results.table.set_index("run_id")
    assert sorted(whole.run_ids) == sorted(table.index)
    first = results.table["run_id"][0]
    for members in (0, "0", first[:8], [first]):
        [one] = modulab.load_members(results.folder, members)
        assert one.run_ids == (first,)
    [some] = modulab.load_members(results, "1-3")
    assert set(some.run_ids) == set(results.table["run_id"][1:4])
    inputs, targets = some.points(32)
    outputs = some.outputs(inputs)
    assert isinstance(outputs, np.ndarray)
    errors = ((outputs - targets) ** 2).mean(axis=(1, 2))
    assert errors.tolist() == pytest.approx(table.loc[list(some.run_ids), "error/test"].tolist(), rel=1e-5)
    # Points of one network, given to all: each gives what it gives alone.
    shared = whole.outputs(inputs[0])
    place = whole.run_ids.index(some.run_ids[1])
    assert np.allclose(shared[place], some.outputs(inputs[0])[1], rtol=0, atol=1e-6)
    with pytest.raises(
        modulab.ConfigError, match=r"inputs of shape \(2, 5\): give points of shape \(point, 2\)"
    ):
        some.outputs(np.zeros((2, 5)))


MISTAKES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda run: modulab.train(nois={"scale": 0.2}), "nois.scale: there is no such key. Did you mean 'noise.scale'?"),
    (lambda run: modulab.train(path="x"), "path: there is no such key. The folder is folder=FOLDER."),
    (lambda run: modulab.train("seed=1,2"), "seed=1,2 is a sweep. Give its values to modulab.train_grid."),
    (lambda run: modulab.train("hydra.run.dir=x"), "Give the folder as folder=FOLDER"),
    (lambda run: modulab.train({"noise.scale": 1}, noise={"scale": 2}), "noise.scale is given twice: noise.scale=1"),
    (lambda run: modulab.train_grid({"seed": [1]}, "population.seeds=2"), "population.seeds is given twice"),
    (lambda run: modulab.train(noise=object()), "noise: a setting is a number, a text"),
    (lambda run: modulab.train_grid({}), "{} is not a grid"),
    (lambda run: modulab.summary(run, by="nois"), "by=nois: these results have no such setting."),
    (lambda run: modulab.summary(run, metrics="eror/test"), "metrics=eror/test: these results have no such measure."),
    (lambda run: modulab.summary(run, baseline="noise.scale=7"), "baseline='noise.scale=7': no network has this"),
    (lambda run: modulab.summary(run, baseline="noise"), "baseline=noise: give a setting and its value"),
    (lambda run: modulab.summary(run, ratio=True), "ratio needs a baseline"),
    (lambda run: modulab.load_results("nowhere"), "Give the folder of the results."),
    (lambda run: modulab.load_results(run, columns=["eror/test"]), "has no such column. Did you mean 'error/test'?"),
    (lambda run: modulab.load_curves(run, metrics="eror/test"), "has no curve of this name. Did you mean"),
    (lambda run: modulab.summary([]), "path=[]: give a folder, or several in a list."),
    (lambda run: modulab.figures([run, run]), "a folder is given twice. Name each once."),
    (lambda run: modulab.load_results(""), "path='': give a folder, as text or as a pathlib.Path."),
    (lambda run: modulab.train(folder=""), "folder='': give a folder, as text or as a pathlib.Path."),
    (lambda run: modulab.analyse(run, []), "with_=[]: name an analysis, such as 'cut', or several in a list."),
    (lambda run: modulab.load_members("nowhere"), "Give the folder of the results."),
    (lambda run: modulab.load_members(run, 99), "members=99: no row has that number or run_id."),
    (lambda run: modulab.figures(run, modules=["no_such"]), "modules=['no_such']: there is no module of that name"),
    (lambda run: modulab.analyse(run, "cutt"), "with_=cutt: there is no such analysis. Did you mean 'cut'?"),
    (lambda run: modulab.run_claims("quik"), "preset=quik: there is no such preset. Did you mean 'quick'?"),
    (lambda run: modulab.run_claims("smoke", "C99"), "only=C99: there is no such claim."),
    (lambda run: modulab.options("nois"), "nois: there is no such group. Did you mean 'noise'?"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), MISTAKES, ids=[words[:30] for _, words in MISTAKES])
def test_a_mistake_is_answered_in_the_words_of_a_call(
    call: Callable[[Any], Any],
    words: str,
    results: modulab.Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(modulab.ConfigError) as raised:
        call(results)
    assert words in str(raised.value)
    assert "--" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_options_are_those_of_the_config_folder_with_their_meanings() -> None:
    from modulab.config.composing import config_folder

    shown = modulab.options("noise").frame
    assert shown["noise"].tolist() == sorted(file.stem for file in (config_folder() / "noise").glob("*.yaml"))
    assert shown["meaning"].str.len().min() > 10


def test_texts_of_users_are_shown_in_html_as_they_are() -> None:
    shown = html_table(["<b>", "x"], [["<script>", "\x1b[31m"]], ["a & b"])
    assert "<td style='text-align: left'>&lt;script&gt;</td>" in shown
    assert "&lt;b&gt;" in shown
    assert "\x1b" not in shown
    assert shown.endswith("<div>a &amp; b</div>")
    page = WrittenPage(Path("a'b&c/report.html")).link()
    assert "href='a&#x27;b&amp;c/report.html'" in page


def test_verdicts_are_a_table_with_a_link_to_their_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modulab.claims import command

    monkeypatch.setattr(command, "run_claims", lambda *arguments: ([], ["robustness: it failed"]))
    found = modulab.run_claims("smoke", folder=tmp_path)
    assert isinstance(found, Verdicts)
    assert list(found.table) == ["claim", "in words", "verdict", "first quantity", "effect", "networks"]
    assert found.lines[0].startswith("The preset smoke only tests that everything runs.")
    assert found.lines[0].endswith("For verdicts, use preset=quick or full.")
    assert found.lines[-1] == "error: robustness: it failed"
    assert Path(found.page) == tmp_path / "report.html"
    assert found._repr_html_().endswith(f"{found.page.link()}</div>")


def test_a_table_is_shown_with_its_cells_and_sentences(results: modulab.Results) -> None:
    shown = modulab.summary(results, metrics="error/test")
    assert isinstance(shown, Table)
    assert shown.html().count("<tr>") == 1 + 2
    assert "n is the number of completed networks" in shown.html()
    assert results._repr_html_().endswith(f"<div>Results: {results.folder}</div>")


WRONG_TYPES = [
    ("load_results(3)", "path=3: give a folder, as text or as a pathlib.Path."),
    ("load_curves(['a', 'b'])", "path=['a', 'b']: give a folder"),
    ("train((), folder=3)", "folder=3: give a folder"),
    ("train(None)", "None: an override is a text, as in 'noise.scale=0.2'."),
    ("train((), config_dirs=[3])", "config_dirs=3: give a folder"),
    ("analyse('a', None)", "with_=None: name an analysis"),
    ("analyse('a', [3])", "with_=[3]: name an analysis"),
]


def test_values_of_a_wrong_type_are_answered_in_one_sentence() -> None:
    """In a process without checks of annotations, as users have it."""
    program = (
        "import modulab\nfor call in %r:\n    try:\n        eval('modulab.' + call)\n"
        % [call for call, _ in WRONG_TYPES]
        + "    except modulab.ConfigError as error:\n        print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for line, (_, words) in zip(ended.stdout.splitlines(), WRONG_TYPES, strict=True):
        assert line.startswith(words)
