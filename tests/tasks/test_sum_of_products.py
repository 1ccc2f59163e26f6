import numpy as np
import pytest
import torch

from modulab.errors import ConfigError


@pytest.mark.parametrize(("modules", "products"), [(1, 1), (2, 1), (3, 4)])
def test_targets_are_mean_products_of_each_modules_pairs(make_task, points, modules, products):
    task = make_task("sum_of_products", modules=modules, products=products)
    samples = task.draw(*points(3, 40), "full", "test")
    pairs = samples.inputs.double().numpy().reshape(3, 40, modules, products, 2)
    np.testing.assert_allclose(samples.targets, pairs.prod(axis=4).mean(axis=3), atol=1e-6)
    assert task.in_features == 2 * modules * products
    assert task.out_features == modules


def test_targets_have_the_stated_variance_and_degree(make_task, points):
    for products in (1, 3):
        targets = (
            make_task("sum_of_products", products=products).draw(*points(10, 2000), "full", "test").targets
        )
        assert abs(targets.double().var().item() * 9 * products - 1) < 0.05
        assert targets.abs().max() <= 1
    # Of degree 2 in a module's inputs, and in each of them linear.
    task = make_task("sum_of_products", modules=1, products=1)
    corners = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])[None, :, None]
    assert task.targets_at(corners)[0, :, 0].tolist() == [1.0, -1.0, -1.0, 1.0]


def test_change_is_as_large_and_uncorrelated(make_task, points):
    task = make_task("sum_of_products", modules=3, products=2)
    samples = task.draw(*points(10, 2000), "full", "test")
    changed = task.changed(samples)
    pairs = samples.inputs.double().unflatten(2, (3, 2, 2))[:, :, 0]
    expected = (pairs[..., 0].square() - pairs[..., 1].square()).mean(dim=2)
    torch.testing.assert_close(changed.targets[:, :, 0].double(), expected, atol=1e-6, rtol=0)
    old, new = (each.targets[:, :, 0].flatten() for each in (samples, changed))
    assert abs(torch.corrcoef(torch.stack([old, new]))[0, 1]) < 4 / 20000**0.5
    # E[(a^2 - b^2)^2] = 2 (1/5 - 1/9) = 8/45 for one pair, half for the mean of two.
    assert abs(new.square().mean().item() - 4 / 45) < 0.005


def test_withheld_regions_lie_outside_the_support(make_task, points):
    task = make_task("sum_of_products", support="corner")
    assert (task.draw(*points(3, 200), "withheld", "test").inputs > 0).all()
    assert (task.draw(*points(3, 200), "train", "test").inputs <= 0).any(dim=2).all()


def test_no_product_is_refused(make_task):
    with pytest.raises(ConfigError, match=r"task\.products=0"):
        make_task("sum_of_products", products=0)
