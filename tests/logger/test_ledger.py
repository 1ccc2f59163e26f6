from __future__ import annotations

from pathlib import Path

from modulab.logger.ledger import Ledger, remember, remembered, sweep_token


def test_a_member_is_lacking_until_told_and_again_once_its_outcome_changes(tmp_path: Path) -> None:
    outcomes = {"a": ["completed", None], "b": ["failed", "no memory"]}
    assert Ledger(tmp_path, "wandb").lacks(outcomes) == ["a", "b"]
    ledger = Ledger(tmp_path, "wandb")
    for name, outcome in outcomes.items():
        ledger.add(name, outcome)
    assert Ledger(tmp_path, "wandb").lacks(outcomes) == []
    assert Ledger(tmp_path, "wandb").lacks(outcomes | {"b": ["completed", None]}) == ["b"]
    assert Ledger(tmp_path, "csv").lacks(outcomes) == ["a", "b"]


def test_a_line_torn_by_a_kill_costs_its_member_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "wandb")
    ledger.add("a", ["completed", None])
    ledger.add("b", ["completed", None])
    path = tmp_path / "logged" / "wandb.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    outcomes = {name: ["completed", None] for name in "abc"}
    again = Ledger(tmp_path, "wandb")
    assert again.lacks(outcomes) == ["b", "c"]
    again.add("c", ["completed", None])
    assert Ledger(tmp_path, "wandb").lacks(outcomes) == ["b"]


def test_a_sweep_keeps_its_token_where_it_is_moved_and_shares_it_with_no_other(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    token = sweep_token(one)
    remember(one, {"project": "mine"})
    assert sweep_token(one) == token != sweep_token(other)
    assert sweep_token(one.rename(tmp_path / "moved")) == token
    assert remembered(tmp_path / "moved")["project"] == "mine"
