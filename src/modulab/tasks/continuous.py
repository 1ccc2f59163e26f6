"""Tasks whose inputs are coordinates in [-1, 1]: their supports, codes and grids."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Bool, Float, Int32
from pydantic import Field, model_validator
from torch import Tensor

from modulab.errors import ConfigError
from modulab.partition import SHARED, Partition
from modulab.schema import STRUCTURAL
from modulab.tasks import bumps, supports
from modulab.tasks.base import Region, Samples, Split, Task


class ContinuousTask(Task):
    """Each module reads numbers in [-1, 1] and has its own outputs. Define sizes and `targets_at`."""

    support: supports.ContinuousSupport = Field(
        description="joint distribution of the modules' inputs in training; all except full withhold "
        "combinations"
    )
    band_width: float = Field(
        ge=0,
        lt=0.5,
        description="w of band support: modules differ by at most 2w; the withheld region begins at 1",
    )
    cells: int = Field(
        ge=2, description="cells support: number of cells into which each input's range is divided"
    )
    withheld_fraction: float = Field(
        gt=0, lt=1, description="cells support: share of the combinations that is withheld"
    )
    withheld_seed: int = Field(ge=0, lt=2**63, description="cells support: seed of the withheld combinations")
    bump_grid: int = Field(
        ge=2,
        description="bump code: number of tuning curves along each coordinate; the number of inputs is this "
        "to the power of the number of coordinates",
        json_schema_extra=STRUCTURAL,
    )
    bump_width: float = Field(
        gt=0, description="bump code: standard deviation of a tuning curve, in units of the grid spacing"
    )

    @model_validator(mode="after")
    def _check_inputs(self) -> ContinuousTask:
        supports.check_support(self._law)
        if self.code == "bump":
            bumps.check_size(self.bump_grid, self.num_coordinates)
        return self

    @property
    def _law(self) -> supports.SupportLaw:
        return supports.SupportLaw(
            support=self.support,
            modules=self.modules,
            coordinates=self.inputs_per_module,
            band_width=self.band_width,
            cells=self.cells,
            withheld_fraction=self.withheld_fraction,
            withheld_seed=self.withheld_seed,
        )

    @property
    def num_coordinates(self) -> int:
        """Return the number of coordinates of all modules."""
        return self.modules * self.inputs_per_module

    @property
    def codes(self) -> tuple[str, ...]:
        """Return all three codes."""
        return ("coordinate", "mixed", "bump")

    @property
    def partition(self) -> Partition:
        """Return equal shares in order; in bump code no input belongs to one module."""
        parts = Partition.of_equal_shares(self.modules, self.inputs_per_module, self.outputs_per_module)
        if self.code != "bump":
            return parts
        return Partition(self.modules, (SHARED,) * self.bump_grid**self.num_coordinates, parts.outputs)

    @property
    def loss(self) -> str:
        """Return `squared`."""
        return "squared"

    @property
    def withholds(self) -> bool:
        """Return whether the support is other than `full`."""
        return self.support != "full"

    @property
    def ranges(self) -> bool:
        """Return whether the network can see inputs beyond [-1, 1]: in bump code no tuning curve lies there."""
        return self.code != "bump"

    @abstractmethod
    def targets_at(
        self, inputs: Float[Tensor, "member batch module coordinate"]
    ) -> Float[Tensor, "member batch target"]:
        """Return the targets at these inputs, a pure function of each point, including its rounding."""

    def draw(
        self,
        keys: Int32[Tensor, "member 2"],
        counters: Int32[Tensor, "member batch"],
        region: Region,
        split: Split,  # noqa: ARG002 synthetic points are the same in both splits
        scales: Float[Tensor, " module"] | None = None,
    ) -> Samples:
        """Return points of a region, widened by `scales`, with the targets there."""
        inputs = supports.region_inputs(keys, counters, region, self._law)
        return self._samples_at(supports.widen(inputs, scales))

    def widened(self, samples: Samples, scales: Float[Tensor, " module"]) -> Samples | None:
        """Return the points stretched, with the targets there; None for a task with its own `draw` or `encode`."""
        own = type(self)
        if own.draw is not ContinuousTask.draw or own.encode is not ContinuousTask.encode:
            return None
        inputs = samples.inputs.unflatten(2, (self.modules, self.inputs_per_module))
        return self._samples_at(supports.widen(inputs, scales))

    def _samples_at(self, inputs: Float[Tensor, "member batch module coordinate"]) -> Samples:
        return Samples(inputs.flatten(2), self.targets_at(inputs))

    def covers(self, inputs: Float[Tensor, "member batch coordinate"]) -> Bool[Tensor, "member batch"]:
        """Return which inputs lie on the support."""
        return supports.covers(inputs.unflatten(2, (self.modules, self.inputs_per_module)), self._law)

    def encode(
        self, inputs: Float[Tensor, "member batch coordinate"]
    ) -> Float[Tensor, "member batch in_features"]:
        """Return the coordinates themselves or, in bump code, the responses of the tuning curves."""
        if self.code != "bump":
            return inputs
        return bumps.responses(inputs, self.bump_grid, self.bump_width)

    def points_per_coordinate(self, num_samples: int) -> int:
        """Return N^(1/D) for N points in D coordinates. Raises: ConfigError if it is not whole, or below 2."""
        if self.support != "full":
            raise ConfigError(
                f"data.sampling=grid covers the whole range, and task.support={self.support} withholds some of it. "
                "Set task.support=full or data.sampling=random."
            )
        return supports.exact_root(num_samples, self.num_coordinates)

    def grid(self, counters: Int32[Tensor, "member batch"], points_per_coordinate: int) -> Samples:
        """Return points of the grid from -1 to 1, the last coordinate the one that varies fastest."""
        inputs = supports.grid_points(counters, points_per_coordinate, self.num_coordinates)
        return self._samples_at(inputs.unflatten(2, (self.modules, self.inputs_per_module)))
