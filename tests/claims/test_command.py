"""`modulab claims`, run as people run it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import modulab
from modulab.claims.presets import PRESETS, experiment_overrides
from modulab.claims.registry import CLAIMS, LONGEST_FIRST
from modulab.config.composing import config_folder
from tests.command_line import MODULAB


class VisibleText(HTMLParser):
    """Collects a page's text, and what it refers to; figures are pictures, whose numbers are in their data."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag, attrs) -> None:
        self._hidden += tag in ("style", "script")
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag) -> None:
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data) -> None:
        if not self._hidden:
            self.words.append(data)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> tuple[Path, str]:
    """Return the folder of a smoke run of all claims, and what it printed."""
    folder = tmp_path_factory.mktemp("claims")
    ran = subprocess.run(
        [*MODULAB, "claims", "--preset", "smoke", "--folder", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return folder, ran.stdout


@pytest.mark.slow
def test_every_number_on_the_page_is_in_the_record(smoke) -> None:
    folder, _ = smoke
    page = VisibleText()
    # Single networks are listed as they are in the results of their experiments.
    page.feed(
        re.sub(r'<h2 id="networks">.*</main>', "", (folder / "report.html").read_text(), flags=re.DOTALL)
    )
    record = (folder / "claims.json").read_text()
    known = set(re.findall(r"\d+(?:\.\d+)?(?:e[-+]\d+)?", json.dumps(json.loads(record), ensure_ascii=False)))
    shown = set(re.findall(r"\d+(?:\.\d+)?(?:e[-+]\d+)?", " ".join(page.words)))
    assert shown - known == set()
    assert len(shown) > 100


@pytest.mark.slow
def test_the_page_needs_nothing_but_itself_and_the_files_beside_it(smoke) -> None:
    folder, _ = smoke
    page = VisibleText()
    page.feed((folder / "report.html").read_text())
    assert len(page.addresses) > 30
    for address in page.addresses:
        assert address.startswith(("data:image/", "#")) or (folder / address).is_file(), address[:80]


@pytest.mark.slow
def test_every_figure_has_its_drawing_and_its_data(smoke) -> None:
    folder, _ = smoke
    record = json.loads((folder / "claims.json").read_text())
    figures = [figure["name"] for claim in record["claims"] for figure in claim["figures"]]
    assert len(figures) >= len(CLAIMS)
    for name in figures:
        assert (folder / f"{name}.png").stat().st_size > 1000
        assert (folder / f"{name}.svg").stat().st_size > 1000
        assert len(pd.read_csv(folder / f"{name}.csv")) > 1


@pytest.mark.slow
def test_every_claim_has_a_verdict_its_criteria_and_commands_that_made_it(smoke) -> None:
    folder, printed = smoke
    record = json.loads((folder / "claims.json").read_text())
    assert [claim["claim"] for claim in record["claims"]] == [claim.name for claim in CLAIMS]
    for claim in record["claims"]:
        assert claim["verdict"] == "not decided (smoke)"
        assert claim["criteria"]
        assert claim["verdict"] in printed
        for experiment in claim["experiments"]:
            words = shlex.split(experiment["command"])
            assert words[:2] == ["modulab", "train"]
            results = modulab.load_results(words[-1].removeprefix("hydra.run.dir="))
            assert len(results) == experiment["networks"]
            assert (results["status"] == "completed").all()


@pytest.mark.slow
def test_a_table_that_two_claims_show_is_on_the_page_once(smoke) -> None:
    page = (smoke[0] / "report.html").read_text("utf-8")
    assert page.count("all settings of the experiment contest, mean [95% interval]</summary>") == 2
    assert (
        "<p>The same table as C4a: all settings of the experiment contest, mean [95% interval].</p>" in page
    )


@pytest.mark.slow
def test_a_second_run_trains_nothing_and_says_the_same(smoke) -> None:
    folder, _ = smoke
    kept = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    rows = modulab.load_results(folder / "noise")
    ran = subprocess.run(
        [*MODULAB, "claims", "--preset", "smoke", "--folder", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    pd.testing.assert_frame_equal(modulab.load_results(folder / "noise"), rows)
    assert {name for name, content in kept.items() if (folder / name).read_bytes() != content} == set()


@pytest.mark.slow
def test_interrupted_claims_go_on_where_they_stopped(tmp_path: Path) -> None:
    command = [*MODULAB, "claims", "--preset", "smoke", "--only", "C1,C2", "--folder", str(tmp_path)]
    begun = subprocess.Popen(
        [*command, "--processes", "1"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(tmp_path.glob("*/parts/*")) and not list(tmp_path.glob("*/results.parquet")):
        assert begun.poll() is None, "over before it could be interrupted"
        time.sleep(0.05)
    begun.send_signal(signal.SIGINT)
    _, told = begun.communicate()
    assert begun.returncode == 130, told
    assert "to resume" in told
    assert not (tmp_path / "report.html").exists()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--preset", "quikc"], "Did you mean 'quick'?"),
        (["--only", "C9"], "there is no such claim"),
        (["--processes", "0"], "1 or more"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(words: list[str], complaint: str) -> None:
    ran = subprocess.run([*MODULAB, "claims", *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert complaint in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_every_experiment_of_the_claims_is_some_presets() -> None:
    needed = {name for claim in CLAIMS for name in claim.experiments}
    assert set(LONGEST_FIRST) == needed
    chosen = {experiment_overrides(name, preset)[0] for preset in PRESETS for name in needed}
    files = {file.stem for file in (config_folder() / "experiment" / "claims").glob("*.yaml")}
    assert chosen == {f"experiment=claims/{name}" for name in files}
