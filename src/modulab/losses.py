"""Losses: how the outputs of a module are evaluated, in training, in tables and in measures.

A task names its loss. A loss has one value per module and member; training minimises the mean over modules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modulab.errors import ConfigError
from modulab.partition import SHARED, Partition
from modulab.schema import suggest


@dataclass(frozen=True)
class Loss(ABC):
    """The base class of losses. Derived classes have numbers as fields; equal fields must give equal values."""

    @property
    def error_label(self) -> str:
        """Return the label of `errors` on axes and in tables."""
        return "Error"

    @property
    def takes_logits(self) -> bool:
        """Return whether adding a constant to all outputs of a module changes nothing, as for logits."""
        return False

    @abstractmethod
    def num_targets(self, partition: Partition) -> int:
        """Return the number of target values of one sample."""

    @abstractmethod
    def by_module(
        self,
        outputs: Float[Tensor, "member batch out_features"],
        targets: Float[Tensor, "member batch target"],
        partition: Partition,
    ) -> Float[Tensor, "member module"]:
        """Return the batch mean of each module's loss. Differentiable."""

    def total(
        self,
        outputs: Float[Tensor, "member batch out_features"],
        targets: Float[Tensor, "member batch target"],
        partition: Partition,
    ) -> Float[Tensor, " member"]:
        """Return the quantity that training minimises: the mean of `by_module` over modules, in any equivalent form."""
        return self.by_module(outputs, targets, partition).mean(dim=1)

    def errors(
        self,
        outputs: Float[Tensor, "member batch out_features"],
        targets: Float[Tensor, "member batch target"],
        partition: Partition,
    ) -> Float[Tensor, "member module"]:
        """Return each module's error as tables show it: the loss, unless something else is easier to read."""
        return self.by_module(outputs, targets, partition)

    @abstractmethod
    def constant_errors(
        self, targets: Float[Tensor, "member batch target"], partition: Partition
    ) -> Float[Tensor, "member module"]:
        """Return each module's error for the best answer that does not depend on the input."""

    def resolution(self, num_samples: int, partition: Partition) -> float:
        """Return the smallest error above 0 that `num_samples` samples can show; ratios of errors divide by no less."""
        del num_samples, partition
        return torch.finfo(torch.float32).tiny

    def rises_without_units(
        self,
        weights: Float[Tensor, "member out_features unit"],
        activity: Float[Tensor, "member unit batch"],
        outputs: Float[Tensor, "member batch out_features"],
        targets: Float[Tensor, "member batch target"],
        partition: Partition,
    ) -> Float[Tensor, "member unit module"] | None:
        """Return how much `by_module` rises when one unit of a linear readout is silenced, where a closed form exists.

        `weights` read `activity` and give `outputs`. None asks for the general way: outputs without each unit.
        """
        del weights, activity, outputs, targets, partition
        return None


@dataclass(frozen=True)
class SquaredLoss(Loss):
    """Mean squared error over samples and a module's outputs."""

    @property
    def error_label(self) -> str:
        """Return `Mean squared error`."""
        return "Mean squared error"

    def num_targets(self, partition: Partition) -> int:
        """Return the number of outputs: each has its own target."""
        return len(partition.outputs)

    def by_module(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return the mean over samples and a module's outputs of (y - t)^2."""
        return _means_of_modules((outputs - targets).square().mean(dim=1), partition)

    def total(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return the mean over samples and outputs, shared ones included: that over modules, if they are alike."""
        squares = (outputs - targets).square()
        if partition.outputs_per_module is None and SHARED not in partition.outputs:
            return _means_of_modules(squares.mean(dim=1), partition).mean(dim=1)
        return squares.mean(dim=(1, 2))

    def constant_errors(self, targets: Tensor, partition: Partition) -> Tensor:
        """Return the variance of each module's targets, which is the error of their mean."""
        return torch.stack(
            [
                _variances(targets[:, :, list(partition.judged_outputs(module))])
                for module in range(partition.modules)
            ],
            dim=1,
        )

    def rises_without_units(
        self, weights: Tensor, activity: Tensor, outputs: Tensor, targets: Tensor, partition: Partition
    ) -> Tensor:
        """Return E[(r_o - w_oj a_j)^2] - E[r_o^2] per unit j, averaged over a module's outputs o; r = y - t."""
        residual = outputs - targets
        power = activity.square().mean(dim=2)[:, None, :]
        overlap = torch.bmm(residual.transpose(1, 2), activity.transpose(1, 2)) / activity.shape[2]
        rises = (weights * (weights * power - 2 * overlap)).transpose(1, 2)
        return _means_of_modules(rises, partition)


@dataclass(frozen=True)
class CrossEntropyLoss(Loss):
    """Cross-entropy in nats: a module's outputs are the logits of its classes, and a target is a class's number."""

    @property
    def error_label(self) -> str:
        """Return `Classification error`."""
        return "Classification error"

    @property
    def takes_logits(self) -> bool:
        """Return True: a softmax does not change when a constant is added to all of its logits."""
        return True

    def num_targets(self, partition: Partition) -> int:
        """Return the number of modules: each has one class."""
        return partition.modules

    def by_module(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return the batch mean of -log softmax(logits)_target for each module."""
        return _cross_entropies(outputs, targets, partition).mean(dim=1)

    def total(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return the mean over samples and modules."""
        return _cross_entropies(outputs, targets, partition).mean(dim=(1, 2))

    def errors(self, outputs: Tensor, targets: Tensor, partition: Partition) -> Tensor:
        """Return 1 - accuracy.

        A class counts as named only if its logit exceeds all others: a tie is an error, and so is NaN.
        """
        logits = _logits(outputs, partition)
        is_target = targets[:, :, :, None] == torch.arange(logits.shape[3], device=outputs.device)
        best_other = torch.where(is_target, -torch.inf, logits).amax(dim=3)
        named = _of_target(logits, targets) > best_other
        return 1 - named.float().mean(dim=1)

    def constant_errors(self, targets: Tensor, partition: Partition) -> Tensor:
        """Return 1 - the share of the most frequent class."""
        classes = torch.arange(_most_outputs(partition), device=targets.device)
        shares = (targets[:, :, :, None] == classes).float().mean(dim=1)
        return 1 - shares.amax(dim=2)

    def resolution(self, num_samples: int, partition: Partition) -> float:
        """Return the share that one wrong answer of one module is."""
        return 1 / (num_samples * partition.modules)


LOSSES: dict[str, Loss] = {"squared": SquaredLoss(), "cross_entropy": CrossEntropyLoss()}


def find_loss(loss: Loss | str) -> Loss:
    """Return a loss, or the one that a name stands for. Raises: ConfigError for an unknown name."""
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        raise ConfigError(
            f"task: its loss is {loss!r}, which is neither a modulab.losses.Loss nor the name of one. "
            f"{suggest(str(loss), LOSSES)}"
        )
    return LOSSES[loss]


def _means_of_modules(
    values: Float[Tensor, "*rows out_features"], partition: Partition
) -> Float[Tensor, "*rows module"]:
    share = partition.outputs_per_module
    if share is not None:
        return values.unflatten(-1, (partition.modules, share)).mean(dim=-1)
    means = [
        values[..., list(partition.judged_outputs(module))].mean(dim=-1)
        for module in range(partition.modules)
    ]
    return torch.stack(means, dim=-1)


def _variances(targets: Float[Tensor, "member batch target"]) -> Float[Tensor, " member"]:
    return (targets - targets.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2))


def _most_outputs(partition: Partition) -> int:
    return max(len(partition.judged_outputs(module)) for module in range(partition.modules))


def _logits(outputs: Tensor, partition: Partition) -> Float[Tensor, "member batch module class"]:
    """Return each module's logits; of modules with fewer classes, those that are missing are -inf."""
    share = partition.outputs_per_module
    if share is not None:
        return outputs.unflatten(2, (partition.modules, share))
    if set(partition.outputs) == {SHARED}:  # by a view: compiled, an index and its gradient would be slow
        return outputs[:, :, None].expand(-1, -1, partition.modules, -1)
    classes = _most_outputs(partition)
    padded = torch.nn.functional.pad(outputs, (0, 1), value=-torch.inf)
    places = [
        [*own, *[len(partition.outputs)] * (classes - len(own))]
        for own in map(partition.judged_outputs, range(partition.modules))
    ]
    return padded[:, :, torch.tensor(places, device=outputs.device)]


def _of_target(logits: Tensor, targets: Tensor) -> Float[Tensor, "member batch module"]:
    classes = torch.arange(logits.shape[3], device=logits.device)
    return torch.where(classes == targets[..., None], logits, 0.0).sum(dim=3)


def _cross_entropies(
    outputs: Tensor, targets: Tensor, partition: Partition
) -> Float[Tensor, "member batch module"]:
    logits = _logits(outputs, partition)
    # Subtracted so that no exponential overflows; it cancels, and so has no gradient.
    largest = logits.detach().amax(dim=3, keepdim=True)
    log_normaliser = (logits - largest).exp().sum(dim=3).log() + largest[..., 0]
    return log_normaliser - _of_target(logits, targets)
