import pytest
import torch
from populations import make_network, make_task, probe_of

from modulab.metrics.errors import mean_errors
from modulab.metrics.extrapolation import measure_combination, measure_ranges
from modulab.metrics.probe import evaluation_samples, widened_samples
from tests.perceptrons import planted


def test_combination_error_is_that_of_the_withheld_region_and_its_ratio_to_support() -> None:
    task = make_task(support="band")
    probe = probe_of(task, make_network(task, 8))
    withheld = evaluation_samples(task, probe.keys, 1024, "withheld")
    spread = withheld.inputs.amax(dim=2) - withheld.inputs.amin(dim=2)
    assert (spread >= 1).all()
    trained = evaluation_samples(task, probe.keys, 1024, "train")
    found = measure_combination(probe)
    expected = mean_errors(probe.network, withheld, task)
    assert torch.equal(found["error_beyond/combination"], expected)
    torch.testing.assert_close(
        found["error_beyond/combination_ratio"], expected / mean_errors(probe.network, trained, task)
    )


def test_combination_is_left_out_where_nothing_is_withheld() -> None:
    for name in ("regression", "classification", "digits"):
        task = make_task(name)
        assert measure_combination(probe_of(task, make_network(task, 4), num_samples=16)) == {}


@pytest.mark.parametrize("modules", [2, 3])
def test_other_modules_range_leaves_a_premodular_network_as_it_is(modules: int) -> None:
    task = make_task(modules=modules)
    probe = probe_of(task, make_network(task, 9, cross_connections=0.0))
    found = measure_ranges(probe)
    clean = mean_errors(probe.network, probe.samples, task)
    for factor in ("1.5", "2", "4", "10"):
        torch.testing.assert_close(found[f"error_beyond/other_range@{factor}"], clean)
        assert (found[f"error_beyond/own_range@{factor}"] > 1.1 * clean).any()


def test_range_errors_have_a_closed_form_for_a_linear_map_of_identity_tasks() -> None:
    # y_m = x_m; the network returns x_0 + x_1 for both, so module m errs by the other's input.
    task = make_task(functions=["identity"])
    network = planted((torch.ones(2, 2, 2),), (torch.zeros(2, 2),), "linear")
    probe = probe_of(task, network, num_samples=50_000, ranges=[3.0])
    found = measure_ranges(probe)
    third = torch.full((2,), 1 / 3)
    torch.testing.assert_close(found["error_beyond/other_range@3"], 9 * third, rtol=0.02, atol=0)
    torch.testing.assert_close(found["error_beyond/own_range@3"], third, rtol=0.02, atol=0)


def test_ranges_are_left_out_where_inputs_have_none_and_others_where_there_are_none() -> None:
    digits = make_task("digits")
    assert measure_ranges(probe_of(digits, make_network(digits, 4), num_samples=16)) == {}
    single = make_task(modules=1)
    assert all("own_range" in name for name in measure_ranges(probe_of(single, make_network(single, 4))))


@pytest.mark.parametrize("support", ["full", "band"])
@pytest.mark.parametrize("functions", [["sine", "parabola"], ["fourier"]])
def test_widened_points_have_the_bits_of_points_drawn_again(support: str, functions: list[str]) -> None:
    task = make_task(support=support, functions=functions)
    probe = probe_of(task, make_network(task, 4), num_samples=77)
    scales = torch.tensor([1.5, 4.0])
    assert task.widened(probe.samples, scales) is not None
    found = widened_samples(probe, scales)
    expected = evaluation_samples(task, probe.keys, 77, "full", scales)
    assert torch.equal(found.inputs, expected.inputs)
    assert torch.equal(found.targets, expected.targets)
