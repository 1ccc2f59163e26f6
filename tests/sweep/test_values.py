"""Sweeps train the values that are written: every function of the grammar against plain Python."""

from __future__ import annotations

from decimal import Decimal
from fnmatch import fnmatch
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from modulab.config.composing import config_folder, plan_run
from modulab.config.composing import hydra_composer as composer
from modulab.errors import ConfigError
from modulab.results.store import load_results
from modulab.sweep.values import expand_jobs
from tests.command_line import SMALL, Command, last_given

LAW = settings(deadline=None, derandomize=True, max_examples=25)
LOADER = ConfigLoaderImpl(create_config_search_path(f"file://{config_folder()}"))
WHOLE = st.integers(-50, 50)
STEPS = WHOLE.filter(bool)
DECIMALS = st.decimals(-5, 5, places=2)


def values(text: str) -> list[Any]:
    """Return the values that `KEY=text` sweeps over, as Hydra reads them in each job."""
    overrides = OverridesParser.create(LOADER).parse_overrides([f"noise={text}"])
    jobs = [override for [override] in expand_jobs(overrides)]
    return [each.value() for each in OverridesParser.create().parse_overrides(jobs)]


def expected_or_refused(text: str, expected: list[Any]) -> None:
    if expected:
        found = values(text)
        assert found == expected
        assert [type(each) for each in found] == [type(each) for each in expected]
    else:
        with pytest.raises(ConfigError, match="this sweep has no values"):
            values(text)


def decimal_range(start: Decimal, stop: Decimal, step: Decimal) -> list[Any]:
    found: list[Any] = []
    while (start < stop) if step > 0 else (start > stop):
        found.append(float(start))
        start += step
    return found


@LAW
@given(WHOLE, WHOLE, STEPS, st.sampled_from(["{}", "tag(a,{})", "sort({})", "sort({},reverse=true)"]))
def test_a_range_of_whole_numbers_is_that_of_python(start: int, stop: int, step: int, function: str) -> None:
    expected: list[Any] = list(range(start, stop, step))
    if "sort" in function:
        expected = sorted(range(start, stop, step), reverse="reverse" in function)
    expected_or_refused(function.format(f"range({start},{stop},{step})"), expected)


@LAW
@given(DECIMALS, DECIMALS, DECIMALS.filter(bool), st.booleans())
def test_a_range_of_floats_is_that_of_decimals(
    start: Decimal, stop: Decimal, step: Decimal, reverse: bool
) -> None:
    expected = decimal_range(start, stop, step)
    text = f"range({start},{stop},{step})"
    expected_or_refused(text, expected)
    if expected:
        expected_or_refused(f"sort({text},reverse={reverse})", sorted(expected, reverse=reverse))
        assert sorted(values(f"shuffle({text})")) == sorted(expected)
        assert values(f"int({text})") == [int(each) for each in expected]


@LAW
@given(st.lists(WHOLE, min_size=1, max_size=6), st.booleans())
def test_choices_are_kept_sorted_and_shuffled_as_lists_are(numbers: list[int], reverse: bool) -> None:
    text = ",".join(map(str, numbers))
    assert values(f"choice({text})") == numbers
    assert values(f"tag(a,b,choice({text}))") == numbers
    assert values(f"sort(choice({text}),reverse={reverse})") == sorted(numbers, reverse=reverse)
    assert values(f"sort(shuffle(choice({text})),reverse={reverse})") == sorted(numbers, reverse=reverse)
    assert values(f"float(choice({text}))") == [float(each) for each in numbers]
    assert values(f"str(choice({text}))") == [str(each) for each in numbers]
    assert values(f"[{text}],{{a: 1}}") == [numbers, {"a": 1}]
    shuffled = values(f"shuffle(choice({text}))")
    assert sorted(shuffled) == sorted(numbers)
    assert values(f"shuffle(choice({text}))") == shuffled


@LAW
@given(st.lists(st.text("ab10.e-, ':\\{$", max_size=5), min_size=2, max_size=3))
def test_quoted_texts_stay_the_texts_they_are(texts: list[str]) -> None:
    quoted = ",".join('"' + each.replace("\\", "/").replace('"', "") + '"' for each in texts)
    plain = [each.replace("\\", "/") for each in texts]
    assert values(quoted) == plain
    assert values(f"choice({quoted})") == plain


@pytest.mark.parametrize("pattern", ["*", "p*", "[!n]*", "*o*", "none"])
def test_glob_takes_the_options_whose_names_match(pattern: str) -> None:
    options = sorted(file.stem for file in (config_folder() / "noise").glob("*.yaml"))
    assert values(f"glob('{pattern}')") == [name for name in options if fnmatch(name, pattern)]
    assert values(f"glob('{pattern}',exclude=d*)") == [
        name for name in options if fnmatch(name, pattern) and not fnmatch(name, "d*")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("range(3,3)", "this sweep has no values"),
        ("range(0,5,-1)", "this sweep has no values"),
        ("range(0,5,0)", "its step is not 0"),
        ("range(0,5,0.0)", "its step is not 0"),
        ("range(0,inf)", "bounds of a range are finite"),
        ("range(0,nan)", "bounds of a range are finite"),
        ("range(0,1000000000000)", "this range has 1,000,000,000,000 values"),
        ("interval(0,1)", "an interval has no values to enumerate"),
        ("tag(a,interval(0,1))", "an interval has no values to enumerate"),
        ("glob(zzz*)", "no file of configs/noise/ matches. Known: default, dropout"),
        ("glob(*,exclude=*)", "no file of configs/noise/ matches"),
        ("[range(0,3)]", "a sweep cannot stand inside a list"),
        ("{a: choice(1,2)}", "a sweep cannot stand inside a list, a dictionary"),
        ("choice(0,[interval(0,1)])", "a sweep cannot stand inside a list"),
    ],
)
def test_a_sweep_that_cannot_be_expanded_is_explained(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        values(text)
    assert f"noise={text}" in str(raised.value)


def test_a_product_of_too_many_jobs_is_refused() -> None:
    overrides = OverridesParser.create().parse_overrides(["seed=range(10000)", "noise.scale=range(10000)"])
    with pytest.raises(ConfigError, match="100,000,000 jobs"):
        expand_jobs(overrides)


def test_a_swept_float_is_the_same_member_as_the_one_written(command: Command) -> None:
    dry = ["train", "-m", *last_given(*SMALL, "training.steps=1"), "hydra.sweep.dir=sweep"]
    code, _, err = command(*dry, "noise.scale=sort(range(0.1,0.5,0.1),reverse=true)")
    assert code == 0, err
    results = load_results("sweep")
    assert sorted(results["config.noise.scale"]) == [0.1, 0.2, 0.3, 0.4]
    written = last_given(*SMALL, "training.steps=1", "noise.scale=0.3")
    with composer() as compose:
        [run_id] = plan_run(compose(written), written, compose).run_ids
    assert run_id in set(results["run_id"])


def test_empty_batches_and_sweeps_are_refused_before_anything_is_written(command: Command) -> None:
    for words in (["seed=range(3,3)"], ["noise=glob(zzz*)"], ["seed=0,1", "hydra.sweeper.max_batch_size=0"]):
        code, _, err = command("train", "-m", *words, "hydra.sweep.dir=sweep")
        assert code == 2
        assert err.count("error: ") == 1
        assert "Traceback" not in err
