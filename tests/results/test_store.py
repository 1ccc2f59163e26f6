import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modulab.errors import ConfigError
from modulab.results.store import (
    CURVES,
    RESULTS,
    Planned,
    check_folder,
    completed,
    copy_rows,
    gather,
    load_columns,
    load_curves,
    load_results,
    save_part,
    statuses,
)
from modulab.results.tables import curve_table, result_table
from modulab.results.versions import versions


def rows(run_ids: list[str], statuses: list[str] | None = None, **settings: list[object]) -> pa.Table:
    configs = [
        {"seed": place, "task": {key: values[place] for key, values in settings.items()}}
        for place in range(len(run_ids))
    ]
    statuses = statuses or ["completed"] * len(run_ids)
    errors = [None if status == "completed" else "broke" for status in statuses]
    values = [float(place) if status == "completed" else None for place, status in enumerate(statuses)]
    return result_table(configs, run_ids, statuses, errors, [0.5] * len(run_ids), {"error/test": values})


def save(folder: Path, results: pa.Table, curves: pa.Table | None = None) -> None:
    save_part(folder, "part", results, curves)
    gather(folder)


def planned(table: pa.Table) -> Planned:
    return Planned(table["run_id"].to_pylist(), table.schema, table.take)


def test_saved_rows_are_loaded_with_every_leaf_measure_and_version(tmp_path: Path) -> None:
    configs = [
        {"seed": 3, "noise": {"scale": 0.1, "levels": [1, 2]}, "data": {"num_samples": None}},
        {"seed": 4, "noise": {"scale": 0, "levels": []}, "data": {"num_samples": 12}},
    ]
    table = result_table(
        configs,
        ["a", "b"],
        ["completed", "failed"],
        [None, "broke"],
        [1.5, 0.0],
        {"error/test": [0.25, None]},
    )
    save(tmp_path, table)
    loaded = load_results(tmp_path)
    assert loaded["run_id"].tolist() == ["a", "b"]
    assert loaded["status"].tolist() == ["completed", "failed"]
    assert loaded["seconds"].tolist() == [1.5, 0.0]
    assert loaded["config.seed"].tolist() == [3, 4]
    assert loaded["config.noise.scale"].tolist() == [0.1, 0.0]
    assert loaded["config.noise.levels"].tolist() == ["[1, 2]", "[]"]
    assert loaded["config.data.num_samples"].tolist() == [pd.NA, 12]
    assert loaded["error/test"].tolist()[0] == 0.25
    assert np.isnan(loaded["error/test"].tolist()[1])
    for name, value in versions().items():
        assert set(loaded[f"version.{name}"]) == {value}


def test_versions_name_modulab_torch_python_and_the_commit() -> None:
    assert list(versions()) == ["modulab", "torch", "python", "git_commit"]
    assert versions()["modulab"]
    commit = versions()["git_commit"]
    assert commit is None or len(commit.removesuffix("-dirty")) == 40


def test_new_rows_replace_those_of_the_same_member_and_keep_others(tmp_path: Path) -> None:
    save(tmp_path, rows(["a", "b"], ["completed", "failed"], modules=[2, 3]))
    save(tmp_path, rows(["b", "c"], modules=[3, 4]))
    loaded = load_results(tmp_path).set_index("run_id")
    assert loaded["status"].to_dict() == {"a": "completed", "b": "completed", "c": "completed"}
    assert loaded["config.task.modules"].to_dict() == {"a": 2, "b": 3, "c": 4}


def test_merging_keeps_columns_that_only_one_side_has(tmp_path: Path) -> None:
    save(tmp_path, rows(["a"], modules=[2]))
    save(tmp_path, rows(["b"], support=["band"]))
    loaded = load_results(tmp_path).set_index("run_id")
    assert loaded.loc["a", "config.task.modules"] == 2
    assert pd.isna(loaded.loc["b", "config.task.modules"])
    assert loaded.loc["b", "config.task.support"] == "band"
    assert list(loaded.columns)[-4:] == [f"version.{name}" for name in versions()]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (1, 2.5, [1.0, 2.5]),
        (1, None, [1, pd.NA]),
        (None, "band", [None, "band"]),
        (1, "band", ["1", "band"]),
        (True, 0.5, ["true", "0.5"]),
    ],
)
def test_a_setting_may_change_its_type_within_or_between_writes(
    tmp_path: Path, first: object, second: object, expected: list[object]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    save(tmp_path / "one", rows(["a", "b"], value=[first, second]))
    save(tmp_path / "two", rows(["a"], value=[first]))
    save(tmp_path / "two", rows(["b"], value=[second]))
    for name in ("one", "two"):
        found = load_results(tmp_path / name)["config.task.value"].tolist()
        assert [None if pd.isna(value) else value for value in found] == [
            None if pd.isna(value) else value for value in expected
        ]


def test_curves_are_loaded_as_run_step_measure_and_value(tmp_path: Path) -> None:
    save(tmp_path, rows(["a", "b"]), curve_table(["a", "b"], [0, 10], {"loss": [[3.0, 2.0], [5.0, 4.0]]}))
    save(tmp_path, rows(["b"]), curve_table(["b"], [0, 20], {"loss": [[7.0, 6.0]]}))
    loaded = load_curves(tmp_path)
    assert [tuple(row) for row in loaded.itertuples(index=False)] == [
        ("a", 0, "loss", 3.0),
        ("a", 10, "loss", 2.0),
        ("b", 0, "loss", 7.0),
        ("b", 20, "loss", 6.0),
    ]


def test_completed_names_finished_and_diverged_but_not_failed_members(tmp_path: Path) -> None:
    assert completed(tmp_path) == set()
    save(tmp_path, rows(["a", "b", "c"], ["completed", "failed", "diverged"]))
    assert completed(tmp_path) == {"a", "c"}


def test_a_folder_of_run_folders_is_loaded_as_one_table(tmp_path: Path) -> None:
    for name, run_ids, status in (
        ("0", ["a", "b"], ["completed", "failed"]),
        ("1", ["b", "c"], ["completed", "failed"]),
        ("2", ["a", "c"], ["failed", "failed"]),
    ):
        (tmp_path / name).mkdir()
        save(tmp_path / name, rows(run_ids, status))
    loaded = load_results(tmp_path)
    assert dict(zip(loaded["run_id"], loaded["status"], strict=True)) == {
        "a": "completed",
        "b": "completed",
        "c": "failed",
    }


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    save(tmp_path, rows(["a"]))
    before = (tmp_path / RESULTS).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path, rows(["b"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / RESULTS).read_bytes() == before
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == []


def damage(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-40])
    return "is damaged"


def age(path: Path) -> str:
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"modulab.format": b"99"}), path)
    return "another version of modulab .file format 99; this one reads 1."


def estrange(path: Path) -> str:
    pq.write_table(pa.table({"x": [1]}), path)
    return "was not written by modulab"


@pytest.mark.parametrize("spoil", [damage, age, estrange])
def test_an_unreadable_file_is_an_error_and_is_never_overwritten(tmp_path: Path, spoil) -> None:
    save(tmp_path, rows(["a"]), curve_table(["a"], [0], {"loss": [[1.0]]}))
    message = spoil(tmp_path / RESULTS)
    before = (tmp_path / RESULTS).read_bytes()
    for attempt in (
        lambda: load_results(tmp_path),
        lambda: check_folder(tmp_path),
        lambda: completed(tmp_path),
        lambda: save(tmp_path, rows(["b"])),
    ):
        with pytest.raises(ConfigError, match=message):
            attempt()
    assert (tmp_path / RESULTS).read_bytes() == before
    assert load_curves(tmp_path / CURVES)["value"].tolist() == [1.0]


def test_a_path_without_results_is_an_error_that_says_which_folder_to_give(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"results.parquet. Give the folder"):
            load_results(path)


def test_a_folder_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write there.*Choose another folder"):
        check_folder(tmp_path / "file" / "run")


def test_parts_are_read_at_once_and_gathered_into_the_same_rows(tmp_path: Path) -> None:
    save_part(tmp_path, "one", rows(["a", "b"]), curve_table(["a", "b"], [0], {"loss": [[1.0], [2.0]]}))
    save_part(tmp_path, "two", rows(["c"], ["diverged"]), curve_table(["c"], [0], {"loss": [[3.0]]}))
    before, curves = load_results(tmp_path), load_curves(tmp_path)
    assert before["run_id"].tolist() == ["a", "b", "c"]
    gather(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURVES, RESULTS]
    pd.testing.assert_frame_equal(load_results(tmp_path), before)
    pd.testing.assert_frame_equal(load_curves(tmp_path), curves)


def test_a_finished_row_is_never_replaced_by_a_failed_or_missing_one(tmp_path: Path) -> None:
    save(tmp_path, rows(["a", "b", "c"], ["completed", "diverged", "failed"]))
    save_part(tmp_path, "later", rows(["a", "b", "c"], ["failed", "missing", "missing"]))
    gather(tmp_path)
    found = load_results(tmp_path).set_index("run_id")["status"].to_dict()
    assert found == {"a": "completed", "b": "diverged", "c": "missing"}


def test_planned_members_are_missing_rows_until_they_have_one_and_leave_with_the_plan(tmp_path: Path) -> None:
    missing = ["missing"] * 3
    gather(tmp_path, planned(rows(["a", "b", "c"], missing)))
    assert statuses(tmp_path) == dict.fromkeys("abc", "missing")
    save_part(tmp_path, "one", rows(["a"]))
    assert statuses(tmp_path) == {"a": "completed", "b": "missing", "c": "missing"}
    gather(tmp_path, planned(rows(["b", "d"], missing[:2])))
    assert statuses(tmp_path) == {"a": "completed", "b": "missing", "d": "missing"}


def test_rows_of_some_members_can_be_copied_with_their_curves(tmp_path: Path) -> None:
    save(tmp_path, rows(["a", "b"]), curve_table(["a", "b"], [0], {"loss": [[1.0], [2.0]]}))
    (tmp_path / "job").mkdir()
    copy_rows(tmp_path, tmp_path / "job", ["b"])
    assert load_results(tmp_path / "job")["run_id"].tolist() == ["b"]
    assert load_curves(tmp_path / "job")["value"].tolist() == [2.0]


@pytest.mark.parametrize("run_id", ["/tmp/elsewhere", "../../elsewhere", "", "a" * 17, "A", "a\n", None])
def test_run_ids_that_are_none_are_refused_on_reading(tmp_path: Path, run_id: str | None) -> None:
    save_part(
        tmp_path, "part", pa.table({"run_id": pa.array([run_id], pa.string()), "status": ["completed"]})
    )
    with pytest.raises(ConfigError, match="run_id that is not one"):
        load_results(tmp_path)


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    save_part(tmp_path, "part", pa.table({"seconds": [1.0]}))
    with pytest.raises(ConfigError, match="lacks the columns run_id, status"):
        load_results(tmp_path)


def test_a_flipped_bit_in_a_page_is_found(tmp_path: Path) -> None:
    values = [float(number) for number in range(1000)]
    run_ids = [f"{number:016x}" for number in range(1000)]
    save_part(
        tmp_path, "part", pa.table({"run_id": run_ids, "status": ["completed"] * 1000, "value": values})
    )
    [file] = (tmp_path / "parts").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        load_results(tmp_path)


def test_settings_under_their_first_names_are_read_under_those_of_now_beside_new_rows(tmp_path: Path) -> None:
    ids = [f"{place:016x}" for place in range(4)]
    save_part(tmp_path, "earlier", rows(ids[:2], mixing=[True, False], mixing_seed=[0, 0]))
    save_part(tmp_path, "now", rows(ids[2:], code=["bump", "mixed"], mixing_seed=[0, 0]))
    for _ in ("in parts", "joined"):
        found = load_results(tmp_path).set_index("run_id").loc[ids]
        assert found["config.task.code"].tolist() == ["mixed", "coordinate", "bump", "mixed"]
        assert "config.task.mixing" not in found
        gather(tmp_path)


def _renamed(table: pa.Table, measure: str) -> pa.Table:
    return table.rename_columns([name.replace("error/test", measure) for name in table.column_names])


def test_columns_are_read_under_names_of_now_and_name_the_row_that_counts(tmp_path: Path) -> None:
    old, new = rows(["a", "b"], ["failed", "completed"]), rows(["a"])
    save_part(tmp_path, "old", _renamed(old, "robustness/poisson@0.3"))
    gather(tmp_path)
    save_part(tmp_path, "new", _renamed(new, "error_under/poisson@0.3"))
    read = load_columns(tmp_path, ["error_under/*", "status"])
    assert list(read) == ["error_under/poisson@0.3", "status"]
    assert read["status"].tolist() == ["completed", "completed"]
    assert sorted(read["error_under/poisson@0.3"]) == [0.0, 1.0]
    pd.testing.assert_frame_equal(read, load_columns(tmp_path, ["robustness/poisson@0.3", "status"]))
