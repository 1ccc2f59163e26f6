"""Annotations of modulab are checked while tests run, those with shapes and those without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from modulab.config.identity import run_id
from modulab.results.store import load_results
from modulab.streams import fold_in
from tests.type_checks import modules_with_shapes


def test_a_wrong_shape_is_noticed() -> None:
    keys = torch.zeros(3, 2, dtype=torch.int32)
    assert fold_in(keys, torch.zeros(3, dtype=torch.int32)).shape == (3, 2)
    for wrong in (torch.zeros(4, dtype=torch.int32), torch.zeros(3)):
        with pytest.raises(TypeCheckError):
            fold_in(keys, wrong)


def test_a_wrong_type_is_noticed_where_no_shapes_are_named() -> None:
    assert not {run_id.__module__, load_results.__module__} & set(modules_with_shapes())
    functions: list[Any] = [run_id, load_results]
    for function in functions:
        with pytest.raises(BeartypeCallHintViolation):
            function(3)
