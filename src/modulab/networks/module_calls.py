"""One call of a torch module for all members at once, whose sites pass their values through a tap."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from modulab.networks.base import Parameter, Tap, split_parameters
from modulab.networks.module_recipe import ModuleRecipe


def side_by_side(
    module: nn.Module,
    parts: dict[str, Tensor],
    inputs: Float[Tensor, "member batch in_features"],
) -> Tensor:
    """Return what a module returns for every member."""
    fixed = {
        name: value.to(inputs.device)
        for name, value in module.named_buffers()
        if not value.is_floating_point()
    }

    def call(own: dict[str, Tensor], seen: Tensor) -> Tensor:
        return functional_call(module, own | fixed, (seen,))

    return torch.vmap(call)(parts, inputs)


def parts_of(rows: Tensor, layout: Sequence[Parameter]) -> dict[str, Tensor]:
    """Return the parts of rows by name, without derivatives by those that are not trained.

    torch has none by some of them, such as the statistics of a normalisation.
    """
    parts = split_parameters(rows, layout)
    return parts | {part.name: parts[part.name].detach() for part in layout if not part.trained}


@contextmanager
def tapped(module: nn.Module, network: ModuleRecipe, tap: Tap | None) -> Generator[None]:
    """Pass the outputs of a module's sites through a tap."""
    handles: list[Any] = []
    if tap is not None:
        for name in network.site_names:
            place = functools.partial(_pass_on, tap=tap, name=name, unit_axis=network.unit_axis)
            hook = functools.partial(_through, place)
            handles.append(module.get_submodule(name).register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _through(place: Callable[[Tensor], Tensor], module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
    del module, arguments
    return cast("Any", _OverMembers).apply(output, place)


def _pass_on(values: Tensor, tap: Tap, name: str, unit_axis: int) -> Tensor:
    """Return (member, batch, ...) values after a tap that takes them as (member, unit, batch x positions)."""
    axis = unit_axis if unit_axis < 0 else unit_axis + 1
    units_first = values.movedim(axis, 1)
    passed_on = tap(name, units_first.flatten(2)).unflatten(2, units_first.shape[2:])
    # A copy: the module may modify in place what it is given here, and the tap may have kept that.
    return passed_on.movedim(1, axis).clone()


class _OverMembers(torch.autograd.Function):
    """Calls a function of all members' values from within a call that `vmap` makes for one of them.

    Only its rule for `vmap` is ever used. Derivatives are those of the operations in it.
    """

    @staticmethod
    def forward(values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Called only for values that all members share."""
        del values, function
        raise ValueError(
            "a site in architecture.sites returned something in which no parameter or input plays a part"
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: tuple[int, None], values: Tensor, function: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, int]:
        """Return the function of the values of all members, their axis first."""
        del info
        return function(values.movedim(in_dims[0], 0)), 0
