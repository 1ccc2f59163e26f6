"""Annotations of modulab are checked while tests run, those with shapes and those without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from torch import Tensor

from modulab.config.identity import run_id
from modulab.results.store import load_results
from modulab.streams import _shift_right, fold_in
from tests.type_checks import checked, modules_with_shapes

Row = Float[Tensor, " row"]


class Repeated:
    """A class none of whose functions name a shape."""

    @checked
    def __init__(self, *, number: int = 2) -> None:
        super().__init__()
        self.number = number

    @checked
    def times(self, times: int) -> Iterator[int]:
        yield from [self.number] * times


def test_a_wrong_shape_is_noticed() -> None:
    keys = torch.zeros(3, 2, dtype=torch.int32)
    assert fold_in(keys, torch.zeros(3, dtype=torch.int32)).shape == (3, 2)
    for wrong in (torch.zeros(4, dtype=torch.int32), torch.zeros(3)):
        with pytest.raises(BeartypeCallHintViolation):
            fold_in(keys, wrong)


def test_a_wrong_type_is_noticed_where_no_shapes_are_named() -> None:
    assert not {run_id.__module__, load_results.__module__} & set(modules_with_shapes())
    functions: list[Any] = [run_id, load_results]
    for function in functions:
        with pytest.raises(BeartypeCallHintViolation):
            function(3)


def test_a_wrong_type_is_noticed_beside_functions_that_name_shapes() -> None:
    given: Any = "2"
    for wrong in (lambda: _shift_right(torch.zeros(1), given), lambda: Repeated(number=given)):
        with pytest.raises(BeartypeCallHintViolation):
            wrong()
    repeated = Repeated(number=3)
    assert list(repeated.times(2)) == [3, 3]
    with pytest.raises(BeartypeCallHintViolation, match="times"):
        list(repeated.times(given))


def test_what_is_returned_has_the_axes_of_what_was_given() -> None:
    @checked
    def first(values: Row, /, *others: Row, number: int = 2, **named: Row) -> Row:
        return values[:number]

    two, three = torch.zeros(2), torch.zeros(3)
    assert first(two, two, more=two) is not None
    assert first(three, number=3) is not None  # an axis may have another size in another call
    for given, named in (
        ((three,), {}),
        ((two, three), {}),
        ((two,), {"more": three}),
        ((two,), {"number": "2"}),
    ):
        with pytest.raises(BeartypeCallHintViolation, match="first"):
            first(*given, **named)
    with pytest.raises(TypeError, match="positional"):
        first()


def test_a_function_made_again_is_checked_and_calls_the_one_that_was_made() -> None:
    def doubled_by(factor: float) -> Callable[[Tensor], Tensor]:
        @checked
        def scaled(values: Row) -> Row:
            return values * factor

        return scaled

    functions = [doubled_by(2.0), doubled_by(3.0)]
    assert [float(function(torch.ones(1))) for function in functions] == [2.0, 3.0]
    for function in functions:
        with pytest.raises(BeartypeCallHintViolation):
            function(torch.ones(1, 1))


def test_fields_of_dataclasses_are_checked_each_by_their_own_annotations() -> None:
    @checked
    @dataclass
    class OfRows:
        first: Row
        second: Row

    @checked
    @dataclass
    class OfNumbers:
        first: int
        second: int

    assert OfRows(torch.zeros(2), torch.zeros(2)).first.shape == (2,)
    assert OfNumbers(1, 2).second == 2
    for wrong in (lambda: OfRows(torch.zeros(2), torch.zeros(3)), lambda: OfNumbers(1, torch.zeros(2))):
        with pytest.raises(BeartypeCallHintViolation):
            wrong()


def test_generators_and_methods_are_checked() -> None:
    class Pair:
        @checked
        def added(self, values: Row, others: Row) -> Row:
            return values + others

    @contextmanager
    @checked
    def around(values: Row) -> Iterator[Row]:
        yield values

    assert Pair().added(torch.ones(2), torch.ones(2)).tolist() == [2, 2]
    with around(torch.ones(2)) as inside:
        assert inside.shape == (2,)
    for wrong in (
        lambda: Pair().added(torch.ones(2), torch.ones(3)),
        lambda: around(torch.ones(1, 1)).__enter__(),
    ):
        with pytest.raises(BeartypeCallHintViolation):
            wrong()


def test_checks_can_be_switched_off(unchecked: None) -> None:
    @checked
    def same(values: Row) -> Row:
        return values

    assert same(torch.ones(1, 1)).shape == (1, 1)
