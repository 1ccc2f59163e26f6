"""Code that is not part of modulab: what it must return, and that it draws from no global random generator.

What it draws there depends on what was drawn before in the process: on which networks are packed together, and on
whether a sweep was resumed. Random numbers that results depend on come from `modulab.streams`.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from modulab.errors import ForeignError
from modulab.random_state import changed_generators, random_state

_CHECKS_TYPES = "beartype"
"""A library that checks the types of arguments, and draws which items of a list it looks at from `random`."""


def is_foreign(item: object) -> bool:
    """Return whether a function, a class or an object's class is defined outside modulab."""
    return not dotted_name(item).startswith("modulab.")


def dotted_name(item: object) -> str:
    """Return the dotted path of a function, a class or an object's class."""
    named: Any = item if hasattr(item, "__qualname__") else type(item)
    return f"{named.__module__}.{named.__qualname__}"


def wrong_result(got: str, expected: str, source: str = "") -> ForeignError:
    """Return what to raise for something that foreign code returned; `source` is its name, if no one else gives it."""
    return ForeignError(f"a wrong result{f' of {source}' if source else ''}: {got}. Return {expected}.")


def kind_of(value: object) -> str:
    """Return what a value is, in words: its type, and its shape if it has one."""
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    numbers = "complex " if "complex" in str(getattr(value, "dtype", "")) else ""
    return f"of type {type(value).__name__}{'' if shape is None else f', {numbers}shape {tuple(shape)}'}"


def check_tensor(value: object, shape: tuple[Any, ...], source: str, part: str = "") -> None:
    """Check a tensor of real numbers that foreign code returned; None in a shape stands for any size along an axis.

    Raises: ForeignError, which names `source`, and the `part` of what it returned.
    """
    import torch  # not above: settings are read before torch is needed

    if isinstance(value, torch.Tensor) and not value.is_complex():
        sizes = value.shape
        if len(sizes) == len(shape) and all(map(_fits, shape, sizes)):
            return
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    expected = f"a torch.Tensor of real numbers of shape ({sizes}{',' if len(shape) == 1 else ''})"
    raise wrong_result(f"{part or 'it'} is {kind_of(value)}", expected, source)


def _fits(wanted: int | None, size: int) -> bool:
    return wanted is None or wanted == size


@contextmanager
def own_draws_only(*items: object) -> Generator[None]:
    """Raise ForeignError where what runs within draws from a global generator, and some of the items are foreign.

    The items are the functions, classes and objects that run, of which the message names the foreign ones. Looking at
    the generators takes about 0.1 ms, and nothing where all items are modulab's own. Python's generator counts unless
    beartype is in use, which draws from it whenever a function is called.
    """
    names = list(dict.fromkeys(dotted_name(item) for item in items if is_foreign(item)))
    if not names:
        yield
        return
    before = random_state()
    yield
    drawn_from = changed_generators(before, random_state())
    if "random" in drawn_from and _CHECKS_TYPES in sys.modules:
        drawn_from.remove("random")
    if drawn_from:
        raise ForeignError(
            f"a draw by {' or '.join(names)} from the global random generator of {' and '.join(drawn_from)}. Results "
            "would depend on packing and resuming. Draw from modulab.streams, with the keys that it is given, and "
            "constants from a generator of their own with a fixed seed (see docs/extending.md)."
        )
