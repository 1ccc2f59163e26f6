from __future__ import annotations

from pathlib import Path

import pytest

from modulab.errors import ConfigError
from modulab.results.manifest import (
    POPULATIONS,
    checkpoint_path,
    population_name,
    read_manifests,
    unfinished_populations,
    write_manifest,
)


def began(folder: Path, *run_ids: str) -> None:
    """Leave what a population leaves that has been interrupted."""
    write_manifest(folder, {run_id: {"seed": place} for place, run_id in enumerate(run_ids)})
    checkpoint_path(folder, run_ids).touch()


def test_manifest_gives_back_members_and_configs_in_order(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"b": {"seed": 1, "noise": {"scale": 0.1}}, "a": {"seed": 2}})
    ((_, configs),) = read_manifests(tmp_path)
    assert list(configs.items()) == [("b", {"seed": 1, "noise": {"scale": 0.1}}), ("a", {"seed": 2})]


def test_population_name_depends_on_members_and_their_order() -> None:
    assert population_name(["a", "b"]) == population_name(["a", "b"])
    assert len({population_name(names) for names in (["a", "b"], ["b", "a"], ["a"], ["ab"])}) == 4


def test_only_populations_with_a_checkpoint_and_all_members_pending_are_unfinished(tmp_path: Path) -> None:
    began(tmp_path, "a", "b")
    began(tmp_path, "c", "d")
    write_manifest(tmp_path, {"e": {}})
    assert unfinished_populations(tmp_path, {"a", "b", "c", "e", "f"}) == [["a", "b"]]
    assert unfinished_populations(tmp_path, set()) == []


def test_no_member_is_in_two_unfinished_populations(tmp_path: Path) -> None:
    began(tmp_path, "a", "b")
    began(tmp_path, "b", "c")
    began(tmp_path, "a", "b", "c")
    found = unfinished_populations(tmp_path, {"a", "b", "c"})
    members = [run_id for population in found for run_id in population]
    assert len(members) == len(set(members)) > 0


def test_damaged_manifest_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    began(tmp_path, "a")
    (file,) = (tmp_path / POPULATIONS).glob("*.json.gz")
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(ConfigError, match=r"is damaged .* Move it away, with the \.ckpt file"):
        unfinished_populations(tmp_path, {"a"})


def test_manifest_of_an_earlier_version_gives_way_to_that_of_the_process_that_goes_on(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"a": {"seed": 1}})
    write_manifest(tmp_path, {"a": {"seed": 1, "probes": {}}})
    ((_, configs),) = read_manifests(tmp_path)
    assert configs == {"a": {"seed": 1, "probes": {}}}
