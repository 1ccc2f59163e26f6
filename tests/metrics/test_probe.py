from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from populations import make_network, make_parameters, make_settings, make_shape, make_task, probe_of
from torch import Tensor

from modulab.errors import ConfigError, MeasureFailed
from modulab.metrics.probe import Asked, Probe, evaluation_samples, outputs_in_parts, outputs_on
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.streams import member_keys
from modulab.tasks.base import Task

SMALL: dict[str, Any] = {"num_samples": 130, "levels": [0.3], "ranges": [2.0], "repeats": 3}
CASES = {
    "regression": (make_task(support="band"), (12,), "relu"),
    "deep": (make_task(modules=3, code="mixed"), (7, 10), "softplus"),
    "linear map": (make_task(), (), "linear"),
    "classification": (make_task("classification", support="labels"), (10,), "sigmoid"),
    "digits": (make_task("digits"), (8,), "tanh"),
}


def population(case: str, members: int = 11) -> tuple[Task, NetworkPopulation, Tensor]:
    """Return what to measure: networks of which one has diverged and one overflows."""
    task, hidden, activation = CASES[case]
    shape = make_shape(task, *hidden, activation=activation)
    parameters = make_parameters(shape, members, task.modules)
    parameters[3] = torch.nan
    parameters[4] *= 1e30
    return task, NetworkPopulation(shape, parameters), member_keys(range(members))


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor], places: list[int]) -> None:
    assert found.keys() == expected.keys()
    for name, values in found.items():
        wanted = expected[name][places]
        assert torch.equal(values.view(torch.int64), wanted.view(torch.int64)), name


@pytest.fixture(scope="module")
def everyone() -> Callable[[str], dict[str, Tensor]]:
    """Measure a whole population, once a case."""

    @cache
    def measure(case: str) -> dict[str, Tensor]:
        return measure_population(*population(case), make_settings(**SMALL))

    return measure


@pytest.mark.parametrize("case", list(CASES))
@settings(max_examples=2)
@given(places=st.lists(st.integers(0, 10), min_size=1, max_size=14))
@example(places=[10])
@example(places=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 10])
def test_members_score_alone_what_they_score_in_any_company(case: str, places: list[int], everyone) -> None:
    task, networks, keys = population(case)
    found = measure_population(
        task, networks.select(torch.tensor(places)), keys[places], make_settings(**SMALL)
    )
    assert_same_bits(found, everyone(case), places)


def test_members_of_a_large_block_score_what_they_score_in_small_ones() -> None:
    # Sums over seven modules, for more members than a processor adds at once.
    task = make_task(modules=7)
    shape = make_shape(task, 14, 14)
    networks = NetworkPopulation(shape, make_parameters(shape, 43, 7))
    keys = member_keys(range(43))
    together = measure_population(task, networks, keys, make_settings(**SMALL))
    small = measure_population(task, networks, keys, make_settings(**SMALL), block_bytes=1)
    assert_same_bits(small, together, list(range(43)))


@pytest.mark.parametrize("case", list(CASES))
def test_blocks_of_members_change_nothing(case: str, everyone) -> None:
    # Blocks of two, and one member left over.
    found = measure_population(*population(case), make_settings(**SMALL), block_bytes=1)
    assert_same_bits(found, everyone(case), list(range(11)))


def test_diverged_member_scores_nan_and_finite_members_finite() -> None:
    task, networks, keys = population("regression")
    found = measure_population(task, networks, keys, make_settings(**SMALL))
    for name, values in found.items():
        assert values[[0, 1, 2, 5, 6]].isfinite().all(), name
        assert values[3].isnan() or name == "activity/active_units", name


def test_default_measures_have_the_names_of_the_science_page() -> None:
    task = make_task(support="band")
    found = measure_population(task, make_network(task, 8, members=2), member_keys([0, 1]), make_settings())
    levels = ("0.1", "0.2", "0.3", "0.5", "1")
    noises = (
        "gaussian",
        "poisson",
        "poisson_energy",
        "multiplicative",
        "poisson_counts",
        "weight_noise",
        "input_noise",
    )
    assert set(found) == {
        *("error/test", "error/module_1", "error/module_2", "error/train_support"),
        *("modularity/structural", "modularity/functional", "modularity/unit_specialisation"),
        *("modularity/structural_frame_null", "modularity/structural_excess"),
        *("modularity/structural_excess_scaled", "modularity/ablation"),
        *("activity/mean", "activity/active_units"),
        *(f"error_under/{noise}@{level}" for noise in noises for level in levels),
        *(f"error_under/ablation@{fraction}" for fraction in ("0.05", "0.1", "0.2", "0.4")),
        *(f"robustness/{noise}/tolerance" for noise in (*noises, "ablation")),
        *("error_beyond/combination", "error_beyond/combination_ratio"),
        *(f"error_beyond/{kind}_range@{r}" for kind in ("own", "other") for r in ("1.5", "2", "4", "10")),
    }
    assert all(values.dtype == torch.float64 for values in found.values())


def test_evaluation_points_of_a_smaller_probe_are_the_first_of_a_larger_one() -> None:
    task, keys = make_task(support="cells"), member_keys([5, 6])
    for region in ("full", "train", "withheld"):
        few, many = (evaluation_samples(task, keys, number, region) for number in (10, 40))
        assert torch.equal(few.inputs, many.inputs[:, :10])
    assert not torch.equal(
        evaluation_samples(task, keys, 10, "full").inputs, evaluation_samples(task, keys, 10, "train").inputs
    )


@pytest.mark.parametrize(("hidden", "points"), [((12,), 200), ((70, 3), 1000), ((), 300)])
def test_outputs_of_a_few_members_at_a_time_are_those_of_all(hidden: tuple[int, ...], points: int) -> None:
    task = make_task()
    network = make_network(task, *hidden, members=23)
    inputs = evaluation_samples(task, member_keys(range(23)), points, "full").inputs
    parts: list[int] = []

    def outputs_of(rows: slice) -> Tensor:
        parts.append(rows.stop - rows.start)
        return network.select(rows).forward(inputs[rows])

    whole, found = network.forward(inputs), outputs_in_parts(network.network, 23, points, outputs_of)
    assert torch.equal(found, whole)
    assert found.stride() == whole.stride()  # or sums over points would be taken in another order
    assert min(parts) > 1
    assert len(parts) == (11 if hidden == (70, 3) else 1)
    assert torch.equal(outputs_on(network, inputs), whole)


def test_what_is_asked_for_again_and_again_has_the_same_points_and_nothing_else() -> None:
    task, networks, keys = population("regression")
    errors = make_settings(measures={"errors": "modulab.metrics.errors.measure_errors"}, **SMALL)
    everything = measure_population(task, networks, keys, errors)
    asked = Asked(("error/test", "error/module_1"))
    for _ in range(2):
        found = measure_population(task, networks, keys, errors, block_bytes=1, asked=asked)
        assert found.keys() == everything.keys() - {"error/train_support"}
        assert_same_bits(found, {name: everything[name] for name in found}, list(range(11)))
    samples = asked.samples(task, keys[:2], 130)
    assert samples is asked.samples(task, keys[:2].clone(), 130)
    assert samples is not asked.samples(task, keys[2:4], 130)
    full = Asked(("error/*",), most_bytes=10)
    assert full.samples(task, keys[:2], 130) is not full.samples(task, keys[:2], 130)
    assert torch.equal(full.samples(task, keys[:2], 130).inputs, samples.inputs)
    assert "error/train_support" in measure_population(task, networks, keys, errors, asked=full)


def no_dict(probe: Probe) -> Any:
    return torch.zeros(len(probe.keys))


def wrong_shape(probe: Probe) -> dict[str, Tensor]:
    return {"my/measure": torch.zeros(1, len(probe.keys))}


def repeats_a_name(probe: Probe) -> dict[str, Tensor]:
    return {"error/test": torch.zeros(len(probe.keys))}


def own_measure(probe: Probe) -> dict[str, Tensor]:
    return {"my/measure": probe.clean.outputs.abs().amax(dim=(1, 2))}


NOT_CALLABLE = 3


def takes_a_column(probe: Probe) -> dict[str, Tensor]:
    """Return a measure under the name of a column of results."""
    return {"status": torch.zeros(len(probe.keys))}


def takes_a_setting(probe: Probe) -> dict[str, Tensor]:
    """Return a measure under the name of a setting's column."""
    return {"config.seed": torch.zeros(len(probe.keys))}


def measure_with(monkeypatch: pytest.MonkeyPatch, path: str, **changes: Any) -> dict[str, Tensor]:
    monkeypatch.syspath_prepend(str(__file__).rpartition("/")[0])
    task = make_task()
    measures = {"errors": "modulab.metrics.errors.measure_errors", "mine": path, "left_out": None}
    chosen = make_settings(**{**SMALL, "measures": measures, **changes})
    return measure_population(task, make_network(task, 4), member_keys(range(3)), chosen)


def test_measures_of_ones_own_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure_with(monkeypatch, f"{__name__}.own_measure")
    task = make_task()
    probe = probe_of(task, make_network(task, 4), num_samples=130)
    assert torch.equal(found["my/measure"], own_measure(probe)["my/measure"].double())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_dict", "it is of type Tensor"),
        ("wrong_shape", r"'my/measure' is of type Tensor, shape \(1, 3\), for 3 networks"),
        ("repeats_a_name", "'error/test' is measured by probes.measures.errors"),
        ("takes_a_column", r"'status' is no text, or that of another column"),
        ("takes_a_setting", "'config.seed' is no text, or that"),
        ("NOT_CALLABLE", "is not a function"),
        ("own_mesure", "Did you mean 'own_measure'"),
    ],
)
def test_faulty_measures_are_named(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    with pytest.raises((ConfigError, MeasureFailed), match=rf"probes\.measures\.mine.*{message}"):
        measure_with(monkeypatch, f"{__name__}.{name}")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("levels", [0.3, 0.1]),
        ("levels", [0.0, 0.1]),
        ("ranges", [2.0, 2.0]),
        ("ablated_fractions", [0.5, 1.0]),
    ],
)
def test_levels_that_do_not_rise_are_refused(
    monkeypatch: pytest.MonkeyPatch, key: str, values: list[float]
) -> None:
    with pytest.raises(ConfigError, match=rf"probes\.{key}: "):
        measure_with(monkeypatch, f"{__name__}.own_measure", **{key: values})
