"""The engine, device and threads that train and measure the members of a run, chosen once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from modulab.config.settings import Member, Trainer
from modulab.cores import cpu_count
from modulab.errors import ConfigError
from modulab.text import say_once
from modulab.training.cost import compiling_pays, native_measures_pay
from modulab.training.engine import ENGINES, Engine, can_compile, steps_natively


@dataclass(frozen=True)
class Execution:
    """The settings of `trainer` that a fit uses, with every `auto` and `null` resolved."""

    engine: Engine
    device: torch.device
    checkpoint_seconds: float = 0.0
    asked_threads: int | None = None
    """CPU threads as the config has them; None takes what suits the engine."""
    engine_may_change: bool = False
    """Whether members may be trained with the eager engine where compiling turns out not to be possible."""
    instead_of_native: Engine = "compiled"
    """The engine of programs for which there is no native step, where `engine` has native steps."""

    @property
    def threads(self) -> int:
        """Return how many threads of the CPU train and measure a population; on other devices, measure it alone."""
        alone = self.device.type == "cpu" and self.engine == "eager"
        return self.asked_threads or (1 if alone else cpu_count())

    def with_engine(self, engine: Engine) -> Execution:
        """Return the same execution with another engine."""
        return replace(self, engine=engine)

    def on_this_machine(self) -> Execution:
        """Return an execution, which may have been chosen on another machine, as far as this machine supports it.

        Raises: ConfigError for CUDA where torch finds no device, and for a compiled engine that the config asks for
        where no compiler is installed, or that does not run on the device.
        """
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "trainer.accelerator=cuda, but torch finds no CUDA device here. "
                "Use trainer.accelerator=cpu, or install a CUDA build of torch."
            )
        if self.device.type != "cpu" and steps_natively(self.engine):
            raise ConfigError(
                f"trainer.engine={self.engine} trains only on the CPU. Use trainer.accelerator=cpu or "
                "trainer.engine=compiled."
            )
        return _with_usable_engine(self)


def choose_device(accelerator: str) -> torch.device:
    """Return the device that a value of `trainer.accelerator` stands for on this machine."""
    takes_cuda = accelerator == "cuda" or (accelerator == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if takes_cuda else "cpu")


def choose_execution(
    trainer: Trainer,
    members: Sequence[Member],
    device: torch.device | None = None,
    begun: Engine | None = None,
) -> Execution:
    """Return how to train these members.

    `auto` continues with the engine that has `begun`. Otherwise it selects the native engine (on devices other than the
    CPU the compiled one) if the steps save more time than compiling takes, and likewise for native measures. With
    a device given, the choice is for another machine that has it; `on_this_machine` checks it there.

    Raises: ConfigError if the config asks for a device or a compiler that this machine lacks, if it is to train.
    """
    chosen = Execution(
        engine="eager",
        device=device or choose_device(trainer.accelerator),
        checkpoint_seconds=trainer.checkpoint_seconds,
        asked_threads=trainer.threads,
    )
    asked = trainer.engine
    if asked not in ("auto", "eager") and any(_is_double(member) for member in members):
        raise ConfigError(
            f"training.precision=float64 needs the eager engine, and trainer.engine={asked}. Use "
            "trainer.engine=auto or eager."
        )
    chosen = _automatic(chosen, members, begun) if asked == "auto" else chosen.with_engine(asked)
    return chosen.on_this_machine() if device is None else chosen


def in_own_precision(execution: Execution, members: Sequence[Member]) -> Execution:
    """Return the execution of a population, whose members share a precision: that of float64 is eager."""
    return execution.with_engine("eager") if _is_double(members[0]) else execution


def _is_double(member: Member) -> bool:
    return member.training.precision == "float64"


def fastest(engines: Iterable[str | None]) -> Engine | None:
    """Return the fastest of the engines among some names, or None if no engine is."""
    names = set(engines)
    return next((engine for engine in reversed(ENGINES) if engine in names), None)


def _automatic(execution: Execution, members: Sequence[Member], begun: Engine | None) -> Execution:
    """Return an execution with the engine that `auto` stands for.

    The choice depends on the members and on nothing of this machine but its device, and so is the same wherever a
    sweep is resumed.
    """
    without_native: Engine = "compiled" if compiling_pays(members, "compiled") else "eager"
    engine = without_native
    if execution.device.type == "cpu" and compiling_pays(members, "native"):
        engine = "native_measures" if native_measures_pay(members) else "native"
    if begun is not None and (not steps_natively(begun) or execution.device.type == "cpu"):
        engine = begun
    return replace(execution, engine=engine, engine_may_change=True, instead_of_native=without_native)


def _with_usable_engine(execution: Execution) -> Execution:
    if execution.engine == "eager" or can_compile(execution.device):
        return execution
    if not execution.engine_may_change:
        raise ConfigError(
            f"trainer.engine={execution.engine} needs a C++ compiler, and none is installed. "
            "Install g++ or use trainer.engine=eager."
        )
    say_once("training with the eager engine, because no C++ compiler (g++) is installed.")
    return execution.with_engine("eager")
