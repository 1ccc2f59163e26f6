"""What holds of every analysis: words for its values, and the same bits whichever members are analysed together."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from modulab.analysis.analysis import Analysis, take_checked
from modulab.analysis.choosing import choose_analyses, shipped_analyses
from modulab.analysis.taking import analyse_members
from modulab.config.settings import Member
from modulab.errors import ConfigError, ForeignError
from modulab.networks.base import Network
from modulab.report.style import ends_at_one, label
from modulab.results.analyses import Analysed, save_analysed, with_analyses
from modulab.results.summary import setting_text, summarise
from tests.analysis.blocks import block, clusters, members, shipped

FIELDS = {
    "cut": {"partitions": 3},
    "cut_found": {"partitions": 15},
    "transplant": {"steps": 3},
    "interaction": {"pairs": 16},
    "clamp": {},
    "clamp_found": {"labels": "modulab.analysis.labels.served_modules"},  # untrained networks have one module
    "likeness": {},
    "route": {"partitions": 3, "shares": [0.5], "labels": clusters(3)},
    "enrichment": {"partitions": 3, "labels": clusters(3)},
    "curriculum": {
        "stages": [{"task.nonlinearity": 0.5}, {"noise.scale": 0.1}],
        "steps": 4,
        "every": 2,
        "level": 9.0,
    },
}


@pytest.mark.parametrize("name", shipped_analyses())
def test_what_an_analysis_finds_is_finite_described_and_has_a_cost(name: str) -> None:
    analysis = shipped(name, **FIELDS[name])
    trained = block(members(2, architecture__width=6, task__support="corner"))
    found = take_checked(analysis, name, trained)
    assert found
    for column, values in found.items():
        short = column.removeprefix(f"{name}/")
        assert any(each.describes(short) is not None for each in analysis.columns), column
        assert label(column) != column
        if ends_at_one(column):
            assert (values <= 1).all()
        assert values.isfinite().all(), column
    assert analysis.seconds(trained.probe.network.network, trained.members[0]) > 0


@pytest.mark.parametrize("name", shipped_analyses())
def test_a_member_alone_gives_the_bits_that_it_gives_among_others(name: str) -> None:
    some = members(4, architecture__width=6, architecture__depth=2)
    trained = block(some)
    network, parameters = trained.probe.network.network, trained.probe.network.parameters
    analysis = shipped(name, **FIELDS[name])
    named = {f"{place}": member for place, member in enumerate(some)}
    [together] = analyse_members(analysis, name, network, named, parameters)
    alone = [
        each
        for place, member in enumerate(some)
        for each in analyse_members(
            analysis, name, network, {f"{place}": member}, parameters[place : place + 1]
        )
    ]
    for column, values in together.values.items():
        one, other = torch.tensor(values), torch.tensor([each.values[column][0] for each in alone])
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0)), column


class Choosy(Analysis):
    """Fails with the member of seed 2."""

    def take(self, trained):
        seeds = [member.seed for member in trained.members]
        if 2 in seeds:
            raise RuntimeError("not with seed 2")
        return {"seed": torch.tensor(seeds)}

    def lacking(self, network: Network, member: Member) -> str | None:
        return "the task has three modules" if member.task.modules == 3 else None


def test_members_that_an_analysis_fails_with_or_cannot_take_do_not_keep_it_from_others() -> None:
    some = members(4, architecture__width=6)
    trained = block(some)
    named = {f"{place}": member for place, member in enumerate(some)}
    found = list(
        analyse_members(
            Choosy(), "own", trained.probe.network.network, named, trained.probe.network.parameters
        )
    )
    values = {
        name: each.values["own/seed"][place]
        for each in found
        if each.values
        for place, name in enumerate(each.run_ids)
    }
    assert values == {"0": 0, "1": 1, "3": 3}
    [failed] = [each for each in found if each.error]
    assert (list(failed.run_ids), failed.error) == (["2"], "RuntimeError: not with seed 2")
    [wide] = members(1, task__modules=3)
    parameters = torch.zeros(1, 1)
    [skipped] = analyse_members(Choosy(), "own", trained.probe.network.network, {"9": wide}, parameters)
    assert skipped.skipped == "the task has three modules"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "it is of type list"),
        ({"x": torch.zeros(3)}, r"'x' is of type Tensor, shape \(3,\), for 2 networks"),
        ({"": torch.zeros(2)}, "'' cannot be that of a value"),
        ({"x": 1.0}, "'x' is of type float"),
    ],
)
def test_what_is_no_value_per_member_is_refused(values: object, message: str) -> None:
    class Wrong(Analysis):
        def take(self, trained):
            return values

    with pytest.raises(ForeignError, match=message):
        take_checked(Wrong(), "own", block(members(2)))


@pytest.mark.parametrize(
    ("wanted", "overrides", "message"),
    [
        ("cutt", [], "--with cutt: there is no such analysis. Did you mean 'cut'?"),
        ("nowhere.yaml", [], "--with nowhere.yaml: there is no such file."),
        ("nowhere.Analysis", [], "cannot import 'nowhere'"),
        ("modulab.config.settings.Probes", [], "it is not an analysis"),
        ("a-b=cut", [], "'a-b' cannot be the name of an analysis"),
        ("cut", ["cut.partitions=few"], "cut.partitions='few'"),
        ("cut", ["cut.partitions=0"], "cut.partitions=0"),
        ("cut", ["cut.partition=3"], "Did you mean 'partitions'?"),
        ("cut", ["clamp.sites=all"], "--with does not name 'clamp'"),
        ("cut", ["partitions=3"], "NAME.FIELD=VALUE"),
        ("cut", ["cut.labels=modulab.analysis.labels.served"], "cut.labels"),
        ("clamp", ["clamp.factors=[1.0,0.0]"], "factors must be from 0 to 2"),
        ("transplant", ["transplant.frozen=3"], "transplant.frozen=3"),
        ("route", ["route.shares=[0.5,0.25]"], "shares must be above 0"),
        ("route", ["route.routers.own=modulab.analysis.routers.Visits"], "route.routers"),
        ("route", ["route.labels.experts=1"], "labels.experts"),
    ],
)  # fmt: skip
def test_wrong_names_fields_and_values_are_refused_in_one_sentence(
    wanted: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        choose_analyses([wanted], overrides)
    assert message in str(refused.value)


def test_analyses_under_different_settings_are_rows_of_their_own(tmp_path: Path) -> None:
    names = [f"{place:016x}" for place in range(5)]
    results = pa.table(
        {
            "run_id": names,
            "skipped": pa.nulls(5, pa.string()),
            "status": ["completed"] * 5,
            "config.seed": [0, 1, 0, 1, 2],
        }
    )
    few = json.dumps({"_target_": "a.Cut", "partitions": 20, "labels": {"search": "x"}})
    many = json.dumps({"_target_": "a.Cut", "partitions": 500, "labels": {"search": "x"}})
    save_analysed(tmp_path, "cut", few, [Analysed(names[:2], {"cut/rise": [1.0, 3.0]})])
    alike = with_analyses(results, tmp_path)
    assert set(alike.column_names) == {*results.column_names, "cut/rise"}
    save_analysed(tmp_path, "cut", many, [Analysed(names[2:4], {"cut/rise": [10.0, 30.0]})])
    joined = with_analyses(results, tmp_path)
    assert joined["config.cut.partitions"].to_pylist() == ["20", "20", "500", "500", None]
    assert [name for name in joined.column_names if name.startswith("config.cut")] == [
        "config.cut.partitions"
    ]
    summary = summarise(joined.to_pandas(), None, ["cut/rise"])
    assert [setting_text(value) for value in summary.settings["cut.partitions"]] == ["20", "500", "-"]
    assert summary.mean["cut/rise"].dropna().tolist() == [2.0, 20.0]
