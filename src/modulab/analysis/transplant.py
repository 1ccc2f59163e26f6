"""Transplant a part of a trained network into a fresh one, and measure what is transferred.

A module's part is all weights between its units, those from its inputs and to its outputs among them, and their biases;
or the part is a number of named parameters. It replaces the same parameters of a newly initialised network,
which is then trained further, with the transplant frozen or not, on the donor's task and data or under other settings,
such as another rule of the same task. The controls get the part of another untrained network (random), or the donor's
values permuted within each named parameter (shuffled), as in Z. Shinnick et al. (arXiv 2505.22308). All three start
from the same fresh network and are trained alike.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int32
from pydantic import Field
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained
from modulab.analysis.curriculum import changed, structure_kept
from modulab.analysis.further import train_further
from modulab.analysis.labels import Labels, LabelSource, find_labels
from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.measure import Column, unmet
from modulab.metrics.probe import Probe, evaluation_samples, in_module_coordinates
from modulab.networks.base import Network, NetworkPopulation
from modulab.networks.parameter_places import NO_PLACES, bias_places, weight_places
from modulab.networks.self_trained import SelfTrained
from modulab.partition import SHARED
from modulab.schema import suggest
from modulab.streams import Stream, fold_in, uniforms
from modulab.training.program import informed

_SECONDS_PER_VALUE = 5e-8
"""Time of a training step for each value of a sample at a site."""
_CHUNK = 100
"""Steps trained at once, which changes no result."""


class _Draw:
    """Words folded into the stream of transplants. Part of every result: never change one."""

    FRESH = 0
    RANDOM = 1
    SHUFFLED = 2


class Transplant(Analysis):
    """The test error of fresh networks with a part of a trained one, against random and shuffled parts."""

    labels: LabelSource = Field(
        description="dotted path of the function that assigns units to the task's modules"
    )
    parts: list[str] | None = Field(
        description="names of parameters to transplant, such as [weight.0, bias.0], or ['*'] for all; null "
        "transplants one module after another"
    )
    changes: dict[str, Any] = Field(
        description="settings of the new networks that differ from the donor, as in {task.rule: sort}; they "
        "cannot change the structure"
    )
    steps: int = Field(ge=0, description="training steps after the transplant")
    frozen: bool = Field(
        description="whether the transplanted parameters are kept constant while the others are trained"
    )

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the errors."""
        return (
            Column("error", "Test error with a transplant"),
            Column("error_random", "Test error with a random transplant"),
            Column("error_shuffled", "Test error with a shuffled transplant"),
            Column("error_module_{module}", "Test error of module {module} with its transplant"),
        )

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why nothing can be transplanted."""
        needs = () if self.parts is not None else ("layers", "output_modules")
        reason = unmet(needs, network, member.task)
        if reason is None and self.parts is None and member.task.mixing:
            reason = "the task mixes inputs, so that no weight from the inputs belongs to one module"
        if reason is None and self.parts is None and bias_places(network) is None:
            reason = NO_PLACES
        if reason is None and self.steps > 0 and isinstance(member.architecture, SelfTrained):
            reason = "the networks train themselves"
        if reason is None and self.changes:
            reason = structure_kept(network, member, self.changes)
        return reason

    def seconds(self, network: Network, member: Member) -> float:
        """Return about how long training the three networks of each transplant takes."""
        transplants = 3 * (1 if self.parts is not None else member.task.modules)
        values = network.step_units * member.training.batch_size
        return _SECONDS_PER_VALUE * values * self.steps * transplants

    def take(self, trained: Trained) -> dict[str, Float64[Tensor, " member"]]:
        """Return errors of a module with its transplant, averaged over modules, and those of the controls.

        Where named parameters are transplanted it is the error of all modules. Errors are on the points on which the
        donor was measured or, after a change of the task, on as many of the new one.
        """
        probe = trained.probe
        chosen = self._chosen(probe)
        every = torch.stack([self._errors(trained, each) for each in chosen])
        # Of modules, the error of each with its own transplant.
        errors = torch.diagonal(every, dim1=0, dim2=3).contiguous() if self.parts is None else every[0]
        donors, random, shuffled = errors.mean(dim=2)
        found = {"error": donors, "error_random": random, "error_shuffled": shuffled}
        return found | {
            f"error_module_{module + 1}": errors[0, :, module] for module in range(probe.task.modules)
        }

    def _chosen(self, probe: Probe) -> list[Bool[Tensor, "member parameter"]]:
        """Return which parameters each transplant consists of."""
        network = probe.network.network
        if self.parts is not None:
            return [named_parameters(network, self.parts).expand_as(probe.mask)]
        labels = find_labels(self.labels)(probe)
        return [module_parameters(probe, labels, module) for module in range(probe.task.modules)]

    def _errors(
        self, trained: Trained, chosen: Bool[Tensor, "member parameter"]
    ) -> Float64[Tensor, "arm member module"]:
        """Return each module's error after training, with the donors' part, a random one and a shuffled one."""
        probe = trained.probe
        parameters, masks = transplants(trained, chosen)
        members = [changed(member, self.changes) for member in trained.members]
        if self.steps > 0:
            parameters = self.trained_further(members, parameters, masks, chosen)
        task, network, samples = members[0].task, probe.network.network, probe.samples
        if task != probe.task:
            samples = evaluation_samples(task, probe.keys, probe.settings.num_samples, "full")
        found: list[Tensor] = []
        for arm in parameters:
            population = in_module_coordinates(NetworkPopulation(network, arm), probe.rotation)
            outputs = population.forward(samples.inputs)
            found.append(task.loss_function.errors(outputs, samples.targets, task.partition).double())
        return torch.stack(found)

    def trained_further(
        self,
        members: Sequence[Member],
        parameters: Float[Tensor, "arm member parameter"],
        masks: Float[Tensor, "arm member parameter"],
        chosen: Bool[Tensor, "member parameter"],
    ) -> Float[Tensor, "arm member parameter"]:
        """Return the parameters after the steps of each member's own optimiser, noise and penalty."""
        frozen = chosen if self.frozen else torch.zeros_like(chosen)
        # Weight decay acts beside the gradient, and a mask acts on gradients alone: after each step it is undone.
        decays = any(member.training.weight_decay > 0 for member in members)
        every = 1 if self.frozen and decays else min(_CHUNK, self.steps)
        arms = len(parameters)
        *_, last = train_further(
            [member for _ in range(arms) for member in members],
            parameters.flatten(0, 1),
            masks.flatten(0, 1),
            self.steps,
            every,
            held=frozen.expand_as(parameters).flatten(0, 1),
        )
        return last.unflatten(0, parameters.shape[:2])


def transplants(
    trained: Trained, chosen: Bool[Tensor, "member parameter"]
) -> tuple[Float[Tensor, "arm member parameter"], Float[Tensor, "arm member parameter"]]:
    """Return parameters and masks of fresh networks with the donors' part, a random part, and a shuffled part."""
    probe = trained.probe
    network, donors = probe.network.network, probe.seen_network.parameters
    keys = fold_in(probe.keys, Stream.TRANSPLANT)
    architectures = [member.architecture for member in trained.members]

    def initialised(word: int) -> tuple[Tensor, Tensor]:
        mask, parameters = network.initialise(architectures, probe.task.partition, fold_in(keys, word))
        return mask, informed(trained.members, network, parameters)

    mask, fresh = initialised(_Draw.FRESH)
    random_mask, random = initialised(_Draw.RANDOM)
    shuffled = shuffle(network, donors, chosen & (probe.mask > 0), fold_in(keys, _Draw.SHUFFLED))
    arms = [(donors, probe.mask), (random, random_mask), (shuffled, probe.mask)]
    parameters = torch.stack([torch.where(chosen, part, fresh) for part, _ in arms])
    return parameters, torch.stack([torch.where(chosen, own, mask) for _, own in arms])


def shuffle(
    network: Network,
    parameters: Float[Tensor, "member parameter"],
    chosen: Bool[Tensor, "member parameter"],
    keys: Int32[Tensor, "member 2"],
) -> Float[Tensor, "member parameter"]:
    """Return parameters in which those chosen are permuted within each named parameter of a member."""
    found: list[Tensor] = []
    sizes = [part.size for part in network.layout]
    pairs = zip(parameters.split(sizes, dim=1), chosen.split(sizes, dim=1), strict=True)
    for number, (values, own) in enumerate(pairs):
        places = torch.arange(values.shape[1], dtype=torch.int32, device=keys.device)
        draws = uniforms(fold_in(keys, number), places.expand(len(keys), -1))
        # Both orders put those chosen first, at random and as they lie, and end with the others as they lie.
        source = torch.where(own, draws, 2.0).argsort(dim=1, stable=True)
        target = torch.where(own, 0.0, 2.0).argsort(dim=1, stable=True)
        found.append(values.scatter(1, target, values.gather(1, source)))
    return torch.cat(found, dim=1)


def named_parameters(network: Network, patterns: Sequence[str]) -> Bool[Tensor, "1 parameter"]:
    """Return which parameters are of a part of the layout that one of the patterns stands for.

    Raises: ConfigError for a pattern that stands for none.
    """
    names = [part.name for part in network.layout]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ConfigError(
                f"parts={pattern}: these networks have no such parameter. {suggest(pattern, names)}"
            )
    chosen = [any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) for name in names]
    sizes = torch.tensor([part.size for part in network.layout])
    return torch.tensor(chosen).repeat_interleave(sizes)[None]


def module_parameters(probe: Probe, labels: Labels, module: int) -> Bool[Tensor, "member parameter"]:
    """Return which parameters are weights between units of a module, or biases of them.

    Units that belong to no module count as its own: so a dead unit stays dead, and shared inputs are read.
    """
    network = probe.network.network
    weights, biases = weight_places(network), bias_places(network)
    assert weights is not None
    assert biases is not None
    found = torch.zeros_like(probe.mask, dtype=torch.bool)
    for (source, target), own, bias in zip(network.connections, weights, biases, strict=True):
        targets, sources = (
            (labels[place] == module) | (labels[place] == SHARED) for place in (target, source)
        )
        found[:, own.flatten().to(found.device)] = (targets[:, :, None] & sources[:, None, :]).flatten(1)
        found[:, bias.to(found.device)] = targets
    return found
