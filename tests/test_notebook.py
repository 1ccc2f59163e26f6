"""modulab in a notebook: docs/notebook.ipynb runs as written, and what a kernel shows, interrupts and keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "notebook.ipynb"

SMALL = (
    '["training.steps=60", "training.curve_every=20", "training.batch_size=8", "architecture.width=4", '
    '"data.num_samples=null", "probes.num_samples=32", "probes.repeats=1", "trainer.engine=eager", '
    '"task._target_=tests.interrupted_task.InterruptedTask"]'
)
FURTHER = {
    "mistake": 'modulab.train(noise={"scal": 0.2})',
    "interrupted": f'modulab.train({SMALL}, folder="interrupted", seed=3)',
    "resumed": (
        "press, signal.raise_signal = signal.raise_signal, lambda number: None\n"
        f'resumed = modulab.train({SMALL}, folder="interrupted", seed=3)\n'
        "signal.raise_signal = press\n"
        "print(resumed.table['status'].tolist())"
    ),
    "page": "from modulab.returned import WrittenPage\nWrittenPage('page/report.html')",
    # Threads are left out: the kernel itself starts one when it first sends a picture.
    "after": "print({name: each for name, each in differences(before, state()).items() if name != 'threads'})",
}
"""Cells that are run after those of the page, in the same kernel."""
BEFORE = "import signal\nimport modulab, pandas\nfrom tests.process_state import differences, state\nbefore = state()"
"""Run before them: pandas has options of its own, which its import sets."""


IN_A_KERNEL = pytest.mark.slow
"""Tests of what a kernel of its own has run, for ten seconds; what calls return and print has tests elsewhere."""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the cells of the page by their ids, and the further ones by their names, as a kernel has run them."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(PAGE, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(BEFORE, id="before"))
    for name, text in FURTHER.items():
        tags = {"tags": ["raises-exception"]} if name in ("mistake", "interrupted") else {}
        notebook.cells.append(nbformat.v4.new_code_cell(text, id=name, metadata=tags))
    with pytest.MonkeyPatch.context() as patch:
        # A kernel's own folders, so that it neither reads the user's settings nor writes beside them.
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(folder / name))
        patch.setenv("PYTHONPATH", str(ROOT), prepend=":")
        NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, timeout=None).execute()
    return {cell["id"]: cell for cell in notebook.cells}


def outputs(cell: Any, kind: str) -> list[Any]:
    return [each for each in cell["outputs"] if each["output_type"] == kind]


def holding(cells: dict[str, Any], text: str) -> Any:
    """Return the cell of the page that holds a text."""
    [found] = [cell for cell in cells.values() if cell["cell_type"] == "code" and text in cell["source"]]
    return found


def test_the_page_is_kept_without_outputs() -> None:
    notebook = nbformat.read(PAGE, as_version=4)
    code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@IN_A_KERNEL
def test_progress_of_a_run_is_one_text_of_its_cell_and_results_are_a_table(cells: dict[str, Any]) -> None:
    cell = holding(cells, "train_grid")
    [progress] = outputs(cell, "display_data")
    assert re.fullmatch(r"12 of 12 runs, \d+ s", progress["data"]["text/plain"])
    [shown] = outputs(cell, "execute_result")
    assert shown["data"]["text/html"].count("<tr>") == 1 + 3
    assert "stream" not in {each["output_type"] for each in cell["outputs"]}


@IN_A_KERNEL
def test_a_comparison_is_shown_as_a_table_of_pairs(cells: dict[str, Any]) -> None:
    [shown] = outputs(holding(cells, "baseline="), "execute_result")
    assert shown["data"]["text/html"].count("<tr>") == 1 + 2
    assert "paired by seed" in shown["data"]["text/html"]


@IN_A_KERNEL
def test_a_figure_is_shown_inline_at_the_size_of_its_texts(cells: dict[str, Any]) -> None:
    [shown] = outputs(holding(cells, 'figures["measures"]'), "execute_result")
    assert shown["data"]["image/png"].startswith("iVBORw0KGgo")
    assert 300 < shown["metadata"]["image/png"]["width"] < 1200


@IN_A_KERNEL
def test_outputs_of_a_network_have_the_error_that_its_row_states(cells: dict[str, Any]) -> None:
    [printed] = outputs(holding(cells, "outputs = trained.outputs"), "stream")
    found = re.search(r"error: (\S+) in the table: (\S+)", printed["text"])
    assert found is not None
    assert float(found[1]) == pytest.approx(float(found[2]), rel=1e-5)


@IN_A_KERNEL
def test_a_mistake_is_shown_as_its_line_and_its_message(cells: dict[str, Any]) -> None:
    [error] = outputs(cells["mistake"], "error")
    assert error["traceback"] == [
        'line 1: modulab.train(noise={"scal": 0.2})',
        "ConfigError: noise.scal: there is no such key. Did you mean 'noise.scale'?",
    ]


@IN_A_KERNEL
def test_an_interrupt_leaves_a_run_that_the_same_call_ends(cells: dict[str, Any]) -> None:
    [error] = outputs(cells["interrupted"], "error")
    assert error["traceback"][-1] == (
        "Interrupted: finished results are in interrupted. Repeat the call with folder='interrupted' to resume."
    )
    assert len(error["traceback"]) == 2
    [printed] = [each for each in outputs(cells["resumed"], "stream") if each["name"] == "stdout"]
    assert printed["text"] == "['completed']\n"


@IN_A_KERNEL
def test_a_page_is_shown_as_a_link_to_it(cells: dict[str, Any]) -> None:
    [shown] = outputs(cells["page"], "execute_result")
    assert "href='page/report.html'" in shown["data"]["text/html"]


@IN_A_KERNEL
def test_the_kernel_is_left_as_it_was(cells: dict[str, Any]) -> None:
    [printed] = outputs(cells["after"], "stream")
    assert printed["text"] == "{}\n"
