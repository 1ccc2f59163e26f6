import pytest
import torch
from populations import make_network, make_task, probe_of

from modulab.metrics.activity import active_units, finite_mean, mean_activity, measure_activity
from modulab.metrics.row_functions import activity_of_units


def test_mean_activity_is_over_units_of_all_layers() -> None:
    first = torch.full((1, 2, 5), -3.0)
    second = torch.full((1, 4, 5), 1.0)
    assert mean_activity(activity_of_units((first, second), finite_mean)).item() == pytest.approx(
        (2 * 3 + 4 * 1) / 6
    )


def test_unit_is_active_if_it_is_on_one_input_in_a_hundred() -> None:
    activity = torch.zeros(1, 4, 1000)
    activity[0, 0] = 1.0
    activity[0, 1, :10] = -1.0
    activity[0, 2, :9] = 1.0
    assert active_units(activity_of_units((activity,), finite_mean)).item() == 2
    assert active_units(activity_of_units((activity, activity), finite_mean)).item() == 4


def test_unit_that_is_silent_next_to_its_layer_is_not_active_whatever_the_scale() -> None:
    activity = torch.ones(3, 2, 100) * torch.tensor([1.0, 1e-4])[:, None]
    scales = torch.tensor([1e-20, 1.0, 1e20])[:, None, None]
    assert active_units(activity_of_units((activity * scales,), finite_mean)).tolist() == [1.0, 1.0, 1.0]


def test_network_without_hidden_units_has_no_activity() -> None:
    task = make_task()
    found = measure_activity(probe_of(task, make_network(task)))
    assert found["activity/mean"].isnan().all()
    assert found["activity/active_units"].tolist() == [0.0] * 3
