"""Classification tasks: each module reads a point of the square [-1, 1]^2 and must name its class, 0 or 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.tasks import supports
from modulab.tasks.base import Region, Samples, Split, Task, own_columns, with_targets_of

LabelName = Literal["xor", "ring"]
_RING_SQUARED_RADIUS = 0.64


@dataclass(frozen=True)
class _Label:
    """A class of points (..., 2), and the share of the square that is of class 1."""

    of: Callable[[Tensor], Tensor]
    share: float


_LABELS: dict[str, _Label] = {
    "xor": _Label(lambda points: points[..., 0] * points[..., 1] > 0.0, 0.5),
    "ring": _Label(
        lambda points: points[..., 0].square() + points[..., 1].square() > _RING_SQUARED_RADIUS,
        1.0 - math.pi * _RING_SQUARED_RADIUS / 4.0,
    ),
}


class ClassificationTask(Task):
    """Module m reads a point of [-1, 1]^2 and names its class: `xor` of its signs, or outside a `ring`."""

    functions: list[LabelName] = Field(
        min_length=1, description="the modules' labels, repeated in order when there are more modules"
    )
    support: Literal[supports.ContinuousSupport, "labels"] = Field(
        description="joint distribution of the modules' inputs in training; all except full withhold "
        "combinations"
    )
    band_width: float = Field(
        ge=0,
        lt=0.5,
        description="w of band support: modules differ by at most 2w in each coordinate; the withheld region "
        "begins at 1",
    )
    cells: int = Field(ge=2, description="cells support: number of cells along each coordinate")
    withheld_fraction: float = Field(
        gt=0, lt=1, description="cells and labels support: share of the combinations that is withheld"
    )
    withheld_seed: int = Field(
        ge=0, lt=2**63, description="cells and labels support: seed of the withheld combinations"
    )

    @model_validator(mode="after")
    def _check_support(self) -> ClassificationTask:
        if self.support == "labels":
            supports.check_withholding(2, self.modules, self.withheld_fraction, "labels")
        else:
            supports.check_support(self._law(self.support))
        return self

    def _law(self, support: supports.ContinuousSupport) -> supports.SupportLaw:
        return supports.SupportLaw(
            support=support,
            modules=self.modules,
            coordinates=self.inputs_per_module,
            band_width=self.band_width,
            cells=self.cells,
            withheld_fraction=self.withheld_fraction,
            withheld_seed=self.withheld_seed,
        )

    @property
    def _module_functions(self) -> tuple[LabelName, ...]:
        return tuple(self.functions[module % len(self.functions)] for module in range(self.modules))

    @property
    def inputs_per_module(self) -> int:
        """Return 2."""
        return 2

    @property
    def outputs_per_module(self) -> int:
        """Return 2."""
        return 2

    @property
    def loss(self) -> str:
        """Return `cross_entropy`."""
        return "cross_entropy"

    @property
    def withholds(self) -> bool:
        """Return whether the support is other than `full`."""
        return self.support != "full"

    @property
    def ranges(self) -> bool:
        """Return True: the labels are defined everywhere."""
        return True

    def changed(self, samples: Samples, module: int = 0) -> Samples:
        """Return the same points with a module's classes those of the other label: ring for xor, xor for ring."""
        name = "ring" if self._module_functions[module] == "xor" else "xor"
        labels = _LABELS[name].of(samples.inputs[:, :, own_columns(module, self.inputs_per_module)])
        return with_targets_of(samples, module, labels.float().unsqueeze(2))

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 synthetic points are the same in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return points of a region, widened by `scales`, with the classes there."""
        functions = self._module_functions
        if self.support != "labels":
            inputs = supports.region_inputs(keys, counters, region, self._law(self.support))
        elif region == "full":
            inputs = supports.full(keys, counters, self.modules, 2)
        else:
            weights = _joint_label_weights(
                functions, self.withheld_fraction, self.withheld_seed, region == "withheld"
            )
            inputs = _labelled_inputs(keys, counters, functions, weights)
        inputs = supports.widen(inputs, scales)
        labels = [_LABELS[name].of(inputs[:, :, module]) for module, name in enumerate(functions)]
        return Samples(inputs.flatten(2), torch.stack(labels, dim=2).float())

    def covers(self, inputs: Float[Tensor, "member batch coordinate"]) -> Bool[Tensor, "member batch"] | None:
        """Return which inputs lie on the support; None if that is one of labels."""
        if self.support == "labels":
            return None
        return supports.covers(inputs.unflatten(2, (self.modules, 2)), self._law(self.support))


@lru_cache(maxsize=8)
def _joint_label_weights(
    functions: tuple[LabelName, ...], fraction: float, seed: int, withheld: bool
) -> Float64[Tensor, " combination"]:
    """Return the probability under `full` support of each joint label, 0 where it is not in the region."""
    shares = [_LABELS[name].share for name in functions]
    values = torch.tensor([[1.0 - share, share] for share in shares], dtype=torch.float64)
    table = supports.withheld_combinations(2, len(functions), fraction, seed)
    return supports.combination_weights(values) * (table == withheld)


def _labelled_inputs(
    keys: Tensor, counters: Tensor, functions: tuple[LabelName, ...], weights: Tensor
) -> Tensor:
    """Return inputs of `full` support given the joint label, which is drawn first, by its weight."""
    labels = supports.combinations(keys, counters, weights, 2, len(functions)).bool()

    def points_of_label(module: int, name: LabelName) -> Tensor:
        return supports.rejection(
            keys,
            counters,
            lambda source: supports.module_inputs(source, module, 2),
            lambda proposals, places: (
                _LABELS[name].of(proposals)[:, 0] == labels[places[:, 0], places[:, 1], module]
            ),
        )

    return torch.stack([points_of_label(module, name) for module, name in enumerate(functions)], dim=2)
