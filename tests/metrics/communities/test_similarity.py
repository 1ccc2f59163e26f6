"""Linear CKA: closed forms and invariances."""

import pytest
import torch

from modulab.metrics.communities.similarity import LayerSimilarity, linear_cka
from tests.metrics.populations import make_network, make_task, probe_of


def activity(members: int, units: int, samples: int, seed: int) -> torch.Tensor:
    return torch.randn(members, units, samples, generator=torch.Generator().manual_seed(seed)).double()


def test_cka_is_one_of_equal_sets_and_of_rotated_and_scaled_ones() -> None:
    one = activity(3, 5, 40, 0)
    rotation = torch.linalg.qr(activity(3, 5, 5, 1))[0]
    turned = 7.0 * torch.bmm(rotation, one) + 2.0
    for other in (one, turned):
        torch.testing.assert_close(linear_cka(one, other), torch.ones(3).double(), rtol=0, atol=1e-12)


def test_cka_of_any_sets_does_not_change_when_one_is_rotated_or_scaled() -> None:
    one, other = activity(2, 5, 40, 0), activity(2, 8, 40, 1)
    rotation = torch.linalg.qr(activity(2, 8, 8, 2))[0]
    torch.testing.assert_close(linear_cka(one, -3 * torch.bmm(rotation, other)), linear_cka(one, other))
    torch.testing.assert_close(linear_cka(other, one), linear_cka(one, other))


@pytest.mark.parametrize(("shared", "expected"), [(0, 0.0), (2, 2 / 12**0.5), (3, 3 / 12**0.5)])
def test_cka_of_orthonormal_sets_is_their_shared_units_over_the_mean_number(
    shared: int, expected: float
) -> None:
    samples = activity(1, 8, 30, 3)
    centred = (samples - samples.mean(dim=2, keepdim=True)).transpose(1, 2)
    basis = torch.linalg.qr(centred)[0].transpose(1, 2)
    one, other = basis[:, :3], basis[:, 3 - shared : 7 - shared]
    assert float(linear_cka(one, other)) == pytest.approx(expected, abs=1e-12)


def test_sites_of_a_network_are_compared_in_pairs() -> None:
    task = make_task()
    probe = probe_of(task, make_network(task, 6, 5, 4))
    found = LayerSimilarity().take(probe)
    assert set(found) == {"similarity/cka@1-2", "similarity/cka@1-3", "similarity/cka@2-3"}
    activities = probe.activities()
    torch.testing.assert_close(found["similarity/cka@1-3"], linear_cka(activities[0], activities[2]))
    shallow = make_network(task, 6).network
    assert "two sites" in str(LayerSimilarity().lacking(shallow, task))
