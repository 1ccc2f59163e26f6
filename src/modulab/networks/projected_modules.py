"""Modules that each read a projection of the inputs to few dimensions: y(x) = sum_k W_k f(R_k U_k x + r_k) + c.

U_k is drawn at random, or aligned with the targets by a kernel before training (`networks.kernel_alignment`), or it is
what the modules of the task read, which a network would have to find out. It is trained with the rest, or kept
(A. Boopathy et al., "Breaking neural network scaling laws with modularity", arXiv 2409.05780).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int32
from pydantic import Field
from torch import Tensor

from modulab.errors import ConfigError
from modulab.losses import SquaredLoss
from modulab.networks.base import Architecture, Network, Parameter, Site, Tap
from modulab.networks.kernel_alignment import KernelRule, align, orthonormal_rows
from modulab.networks.perceptron import ACTIVATIONS, ActivationName, contract
from modulab.partition import Partition
from modulab.schema import STRUCTURAL
from modulab.streams import Stream, fold_in, normals
from modulab.tasks.base import Task, mixing_matrix

PROJECTION = "projection.weight"
"""The name of the rows of all U_k, module after module."""
_PRE_ACTIVATION = "hidden.pre_activation"


@dataclass(frozen=True)
class ProjectedModules(Network):
    """Perceptrons of one hidden layer side by side, each behind a projection, whose outputs are added up."""

    in_features: int
    num_modules: int
    module_features: int
    """Rows of each projection."""
    width: int
    """Hidden units of each module."""
    out_features: int
    activation: str
    trains_projections: bool

    @property
    def layout(self) -> tuple[Parameter, ...]:
        """Return projections, input weights of units, and the readout; modules follow one another."""
        units = self.num_modules * self.width
        return (
            Parameter(
                PROJECTION,
                (self.num_modules * self.module_features, self.in_features),
                trained=self.trains_projections,
            ),
            Parameter("read.weight", (units, self.module_features)),
            Parameter("read.bias", (units,), is_weight=False),
            Parameter("write.weight", (self.out_features, units)),
            Parameter("write.bias", (self.out_features,), is_weight=False),
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return the hidden units of all modules, module after module."""
        return (Site("hidden", self.num_modules * self.width),)

    @property
    def pre_activations(self) -> dict[str, str]:
        """Return hidden.pre_activation."""
        return {"hidden": _PRE_ACTIVATION}

    def initialise(
        self,
        architectures: Sequence[ProjectedModulesArchitecture],
        partition: Partition,
        keys: Int32[Tensor, "member 2"],
    ) -> tuple[Float[Tensor, "member parameter"], Float[Tensor, "member parameter"]]:
        """Return masks of 1, but 0 for projections that are not trained, and random parameters.

        Projections have orthonormal rows, so normal inputs are read as normal values, whatever their number. Other
        weights are normal with variance scale^2 / fan-in, and biases of units, without which all would bend at the same
        point, with variance scale^2.
        """
        del partition
        initial_keys = fold_in(keys, Stream.INITIALISATION)
        members, rows = len(keys), self.num_modules * self.module_features
        scales = torch.tensor([architecture.initial_scale for architecture in architectures])
        scales = scales.to(keys.device)[:, None, None]
        drawn = normals(fold_in(initial_keys, 0), rows, self.in_features).double()
        projections = orthonormal_rows(drawn.view(-1, self.module_features, self.in_features)).float()
        parts = [projections.reshape(members, rows, self.in_features)]
        for number, fan_in in enumerate((self.module_features, 1, self.num_modules * self.width), 1):
            shape = self.layout[number].shape
            draws = normals(fold_in(initial_keys, number), shape[0], shape[1] if len(shape) == 2 else 1)
            parts.append(draws * (scales / fan_in**0.5))
        parts.append(torch.zeros(members, self.out_features, 1, device=keys.device))
        parameters = torch.cat([part.flatten(1) for part in parts], dim=1)
        mask = torch.cat([torch.full((part.size,), float(part.trained)) for part in self.layout])
        return mask.to(keys.device).repeat(members, 1), parameters

    def forward(
        self,
        parameters: Float[Tensor, "member parameter"],
        inputs: Float[Tensor, "member batch in_features"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "member batch out_features"]:
        """Return every member's outputs; `tap` is called at pre-activations, too."""
        tap = tap or (lambda _, values: values)
        parts = self.split(parameters)
        read = contract(parts[PROJECTION], inputs.transpose(1, 2)).split(self.module_features, dim=1)
        weights = parts["read.weight"].split(self.width, dim=1)
        sums = torch.cat([contract(own, values) for own, values in zip(weights, read, strict=True)], dim=1)
        sums = tap(_PRE_ACTIVATION, sums + parts["read.bias"][:, :, None])
        activity = tap("hidden", ACTIVATIONS[self.activation].function(sums))
        outputs = contract(parts["write.weight"], activity) + parts["write.bias"][:, :, None]
        return outputs.transpose(1, 2)

    @property
    def input_weights(self) -> tuple[str, ...]:
        """Return the projections."""
        return (PROJECTION,)

    @property
    def activation_cost(self) -> int:
        """Return that of the nonlinearity, and 1 for the joined sums."""
        return 1 + ACTIVATIONS[self.activation].cost


class ProjectedModulesArchitecture(Architecture):
    """Modules behind projections, and the initial projections."""

    num_modules: int = Field(
        ge=1, description="number of modules of the network", json_schema_extra=STRUCTURAL
    )
    module_features: int = Field(
        ge=1,
        description="number of dimensions to which the inputs of a module are projected",
        json_schema_extra=STRUCTURAL,
    )
    width: int = Field(ge=1, description="hidden units of each module", json_schema_extra=STRUCTURAL)
    activation: ActivationName = Field(
        description="nonlinearity of hidden units", json_schema_extra=STRUCTURAL
    )
    projections: Literal["random", "kernel", "known"] = Field(
        description="initial projections: random, aligned with the training points by a kernel, or known, "
        "those that the task's modules read"
    )
    train_projections: bool = Field(
        description="whether projections are trained with the other weights, or kept constant",
        json_schema_extra=STRUCTURAL,
    )
    bandwidth: float = Field(gt=0, description="bandwidth of the kernel, in units of the inputs")
    ridge: float = Field(gt=0, description="number added to the diagonal of the kernel, whose elements are 1")
    kernel_steps: int = Field(ge=1, description="steps of gradient descent on the kernel objective")
    kernel_step_size: float = Field(
        gt=0, description="size of the first steps of this descent, before momentum"
    )
    kernel_points: int = Field(ge=1, description="maximum number of training points that the kernel uses")
    initial_scale: float = Field(
        gt=0, description="initial weights are normal with standard deviation initial_scale / sqrt(fan-in)"
    )

    def network(self, task: Task) -> ProjectedModules:
        """Return modules that read the task's inputs, and give its outputs together.

        Raises: ConfigError if the task's modules do not read projections of these sizes, or if a kernel is asked
        to fit classes.
        """
        if self.projections == "known":
            self._check_known(task)
        if self.projections == "kernel" and not isinstance(task.loss_function, SquaredLoss):
            raise ConfigError(
                f"architecture.projections=kernel fits numbers, and the targets of task.name={task.name} are not. "
                "Set architecture.projections=random, or choose a task with squared loss, such as task=projected."
            )
        return ProjectedModules(
            task.in_features,
            self.num_modules,
            self.module_features,
            self.width,
            task.out_features,
            self.activation,
            self.train_projections,
        )

    def _check_known(self, task: Task) -> None:
        labels = task.partition.inputs
        if any(labels.count(module) != self.module_features for module in range(task.modules)):
            raise ConfigError(
                f"architecture.projections=known: the modules of task.name={task.name} do not read "
                f"architecture.module_features={self.module_features} inputs each. Set architecture.module_features to "
                "their number, or architecture.projections to random or kernel."
            )

    @property
    def points_read(self) -> int | None:
        """Return the number of points that the kernel reads, 0 for known projections and None for random ones."""
        return {"random": None, "kernel": self.kernel_points, "known": 0}[self.projections]

    def informed(
        self,
        network: Network,
        parameters: Float[Tensor, " parameter"],
        task: Task,
        points: Float[Tensor, "point feature"],
    ) -> Float[Tensor, " parameter"]:
        """Return parameters with projections that are aligned, or known: the task's, one after another and again."""
        assert isinstance(network, ProjectedModules)
        shape = (self.num_modules, self.module_features, network.in_features)
        size = network.layout[0].size
        if self.projections == "known":
            modules = [number % task.modules for number in range(self.num_modules)]
            found = true_projections(task)[modules]
        else:
            rule = KernelRule(self.bandwidth, self.ridge, self.kernel_steps, self.kernel_step_size)
            inputs, targets = points.split([network.in_features, network.out_features], dim=1)
            found = align(rule, parameters[:size].view(shape), inputs, targets)
        return torch.cat([found.flatten(), parameters[size:]])


def true_projections(task: Task) -> Float[Tensor, "module row in_features"]:
    """Return the rows of U_i of each module that reads U_i x, x as the network sees it: those of Q' that are its own.

    Modules have equal numbers of inputs of their own.
    """
    rows = mixing_matrix(task).T
    labels = torch.tensor(task.partition.inputs)
    return torch.stack([rows[labels == module] for module in range(task.modules)])
