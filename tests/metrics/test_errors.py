import pytest
import torch
from populations import make_task, probe_of

from modulab.metrics.errors import measure_errors
from tests.perceptrons import planted


@pytest.mark.parametrize("support", ["full", "band"])
def test_test_error_is_on_full_support_and_support_error_on_that_of_training(support: str) -> None:
    # y_m = x_m, and the network says x_1 for both: module 2 errs by x_1 - x_2, of mean square 2/3 if they are
    # independent, and at most w^2 E[(v_1 - v_2)^2] = 2 w^2 / 3 on the band.
    task = make_task(functions=["identity"], support=support, band_width=0.3)
    network = planted((torch.tensor([[1.0, 0.0]] * 2).expand(3, 2, 2),), (torch.zeros(3, 2),), "relu")
    found = measure_errors(probe_of(task, network, num_samples=20_000))
    assert found["error/module_1"].tolist() == [0.0] * 3
    torch.testing.assert_close(found["error/module_2"], torch.full((3,), 2 / 3), rtol=0.05, atol=0)
    torch.testing.assert_close(found["error/test"], found["error/module_2"] / 2)
    on_support = found["error/train_support"]
    if support == "full":
        torch.testing.assert_close(on_support, torch.full((3,), 1 / 3), rtol=0.05, atol=0)
    else:
        assert ((on_support > 0.5 * 0.03) & (on_support < 0.031)).all()
