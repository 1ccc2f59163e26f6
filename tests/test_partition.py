import pytest
import torch

from modulab.losses import SquaredLoss
from modulab.partition import SHARED, Partition, even_shares, within_modules


def test_equal_shares_are_consecutive_and_recognised() -> None:
    partition = Partition.of_equal_shares(2, 2, 3)
    assert partition.inputs == (0, 0, 1, 1)
    assert partition.outputs == (0, 0, 0, 1, 1, 1)
    assert (partition.inputs_per_module, partition.outputs_per_module) == (2, 3)
    assert Partition(2, (0, 1, 0, 1), (0, 0, 1)).inputs_per_module is None
    assert Partition(2, (0, 1), (0, 1, SHARED)).outputs_per_module is None


def test_units_that_cannot_be_shared_out_evenly_differ_by_one() -> None:
    assert even_shares(5, 2) == (0, 0, 0, 1, 1)


def test_shared_units_belong_to_every_module() -> None:
    assert within_modules([0, 1, SHARED], [0, 1, SHARED]).tolist() == [
        [True, False, True],
        [False, True, True],
        [True, True, True],
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (((0, 2), (0, 1)), "labels are modules from 0 to 1"),
        (((0, 1), (0, 0)), r"modules \[1\] have no output"),
    ],
)
def test_partition_rejects_labels_that_are_no_partition(
    labels: tuple[tuple[int, ...], tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Partition(2, *labels)


def test_modules_that_share_all_outputs_are_judged_by_all_of_them() -> None:
    partition = Partition(2, (0, 1), (SHARED, SHARED))
    assert [partition.outputs_of(module) for module in (0, 1)] == [(), ()]
    assert [partition.judged_outputs(module) for module in (0, 1)] == [(0, 1), (0, 1)]
    outputs = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    errors = SquaredLoss().by_module(outputs, torch.zeros_like(outputs), partition)
    torch.testing.assert_close(errors, outputs.square().mean(dim=(1, 2))[:, None].expand(3, 2))
    torch.testing.assert_close(
        SquaredLoss().total(outputs, torch.zeros_like(outputs), partition), errors[:, 0]
    )
    assert Partition(2, (0, 1), (1, 0, 1)).judged_outputs(1) == (0, 2)
