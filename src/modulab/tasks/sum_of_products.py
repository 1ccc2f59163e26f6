"""Sums of products: targets that are not sums of functions of one input each, within modules that stay independent."""

from __future__ import annotations

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from modulab.schema import STRUCTURAL
from modulab.tasks.base import Samples, own_columns, with_targets_of
from modulab.tasks.continuous import ContinuousTask


class SumOfProductsTask(ContinuousTask):
    """Module m reads a_m1, b_m1, a_m2, b_m2 and so on in [-1, 1], and must give the mean over k of a_mk b_mk.

    The mean has the range [-1, 1], and variance 1 / (9 K) for K products of uniform inputs.
    """

    products: int = Field(
        ge=1,
        description="K, the number of products of two inputs that a module averages",
        json_schema_extra=STRUCTURAL,
    )

    @property
    def inputs_per_module(self) -> int:
        """Return two for each product."""
        return 2 * self.products

    @property
    def outputs_per_module(self) -> int:
        """Return 1."""
        return 1

    def targets_at(
        self, inputs: Float[Tensor, "member batch module coordinate"]
    ) -> Float[Tensor, "member batch target"]:
        """Return the mean product of each module."""
        return _added_up(inputs[..., 0::2] * inputs[..., 1::2]) * (1.0 / self.products)

    def changed(self, samples: Samples, module: int = 0) -> Samples | None:
        """Return the same points with a module giving the mean over k of (a_k - b_k)(a_k + b_k).

        That is a sum of products in axes turned by 45 degrees, and so is as hard; a b and a^2 - b^2 are uncorrelated
        under independent inputs, because the one is odd in a and the other even.
        """
        own = samples.inputs[:, :, None, own_columns(module, self.inputs_per_module)]
        products = own[..., 0::2].square() - own[..., 1::2].square()
        return with_targets_of(samples, module, _added_up(products) * (1.0 / self.products))


def _added_up(terms: Float[Tensor, "member batch module term"]) -> Float[Tensor, "member batch module"]:
    """Return sums added one term after another: those of `Tensor.sum` round by how many there are beside."""
    first, *others = terms.unbind(dim=3)
    for term in others:
        first = first + term
    return first
