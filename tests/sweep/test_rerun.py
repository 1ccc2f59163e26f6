from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modulab.results.store import RESULTS, load_results
from modulab.sweep.rerun import Comparison, report
from tests.command_line import SMALL, Command

SWEEP = ["train", "-m", *SMALL, "noise.scale=0,0.2", "seed=range(3)", "hydra.sweep.dir=sweep"]


def edit(column: str, row: int, change: object) -> None:
    """Change one cell of a results file, as nobody should."""
    path = Path("sweep") / RESULTS
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = change(values[row]) if callable(change) else change
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table[column].type)), path)


def test_every_row_of_a_packed_sweep_comes_out_again_bit_for_bit(command: Command) -> None:
    assert command(*SWEEP)[0] == 0
    found = load_results("sweep")
    for member in ("0", "5", found["run_id"][3], found["run_id"][2][:8]):
        code, out, err = command("rerun", "sweep", "--member", member)
        assert code == 0, err
        match = re.search(
            r"(\w+): trained alone, it agrees bit for bit: (\d+) measures and (\d+) points", out
        )
        assert match is not None
        assert match[1].startswith(member) or match[1] == found["run_id"][int(member)]
        assert int(match[2]) > 30
        assert int(match[3]) == 6
    assert len(load_results("sweep")) == 6


def test_a_number_that_does_not_come_out_again_is_shown_and_is_a_fault(command: Command) -> None:
    command(*SWEEP)
    edit("error/test", 1, lambda value: value * (1 + 1e-9))
    code, out, _ = command("rerun", "sweep", "--member", "1")
    assert code == 1
    assert re.search(r"^error/test +[\d.e-]+ +[\d.e-]+ +1\.0e-09$", out, re.MULTILINE)
    assert re.search(r"1 of \d+ numbers differ\.", out)
    assert "They should be the same bits." in out


def test_numbers_of_another_machine_may_differ_and_it_is_said_why(command: Command) -> None:
    command(*SWEEP)
    edit("error/test", 1, lambda value: value * (1 + 1e-6))
    edit("device", 1, "Another Processor")
    edit("version.torch", 1, "1.0")
    code, out, _ = command("rerun", "sweep", "--member", "1")
    assert code == 0
    assert re.search(
        r"Equal bits are not promised here: device was Another Processor and is .+; torch was 1\.0 and is",
        out,
    )


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("6", "no row has that number or run_id. Give a number from 0 to 5"),
        ("zzzz", "no row has that number or run_id"),
        ("", "no row has that number"),
    ],
)
def test_a_row_that_is_not_there_is_an_error(command: Command, member: str, message: str) -> None:
    command(*SWEEP)
    code, _, err = command("rerun", "sweep", "--member", member)
    assert code == 2
    assert message in err


def test_rows_without_a_result_or_without_their_config_cannot_be_compared(command: Command) -> None:
    command(*SWEEP)
    edit("status", 2, "failed")
    code, _, err = command("rerun", "sweep", "--member", "2")
    assert (code, "that member is failed; there is nothing to compare with" in err) == (2, True)
    for file in Path("sweep").rglob("*.members.json.gz"):
        file.unlink()
    code, _, err = command("rerun", "sweep", "--member", "0")
    assert (code, "which is its config" in err) == (2, True)


def test_report_names_the_first_numbers_and_counts_the_rest() -> None:
    measures = {f"m{number}": (1.0, 2.0) for number in range(20)} | {"same": (3.0, 3.0)}
    comparison = Comparison("abc", ("completed", "diverged"), measures, {}, [])
    _, rows, sentences = report(comparison, shown=3)
    assert [row[0] for row in rows] == ["m0", "m1", "m2"]
    assert sentences[0] == "... and 17 more."
    assert sentences[1] == "abc: 20 of 21 numbers differ, and it was completed and is diverged."
