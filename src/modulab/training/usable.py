"""The engine that each program of a population can be trained by: its step is made here, before training begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modulab.progress import ProgressReport
from modulab.text import say_once
from modulab.training.cache import VARIABLES
from modulab.training.compiled_step import is_built as step_is_built
from modulab.training.engine import Engine, NoCompiler, step_function, steps_natively
from modulab.training.execution import Execution
from modulab.training.libraries import CannotCompile
from modulab.training.native.statements import Unsupported
from modulab.training.native.step import is_built as native_is_built
from modulab.training.program import Program
from modulab.training.torch_private import InterfaceChanged

_cannot_compile: dict[tuple[Engine, str], str] = {}
"""Why an engine's steps cannot be compiled in this process, by the environment's cache folders: found out once."""


def usable_engines(
    programs: Sequence[Program],
    begun: Mapping[Program, Engine | None],
    execution: Execution,
    progress: ProgressReport,
) -> dict[Program, Engine]:
    """Make the steps of programs, and return the engine that each can be trained by.

    A program that was `begun` continues with the engine that began it; None stands for one that is not known, of a
    version that had no native engine. What a program is trained by does not depend on those beside it.

    Raises: ConfigError, or whatever a step of the user's own raises, where the config asks for an engine that is not
    possible.
    """
    engines: dict[Program, Engine] = {}
    for number, program in enumerate(programs, start=1):
        wanted = execution.engine
        if program in begun:
            wanted = begun[program] or _without_native(execution)
        if steps_natively(wanted) and execution.device.type != "cpu":
            wanted = execution.instead_of_native
        may_change = execution.engine_may_change or wanted != execution.engine
        making = _Making(execution, may_change, progress, f"{number} of {len(programs)}")
        engines[program] = making.usable(program, wanted)
        if engines[program] == wanted != execution.engine and not execution.engine_may_change:
            say_once(
                f"networks that the {wanted} engine began to train continue with it, and not with "
                f"trainer.engine={execution.engine}."
            )
    return engines


def _without_native(execution: Execution) -> Engine:
    return execution.instead_of_native if steps_natively(execution.engine) else execution.engine


@dataclass(frozen=True)
class _Making:
    """How a step is made, and whether another engine may take the place of the one wanted."""

    execution: Execution
    may_change: bool
    progress: ProgressReport
    number: str
    """The number of the step among those of the population, as progress shows it."""

    def usable(self, program: Program, engine: Engine) -> Engine:
        """Make a program's step, and return the engine that has one: the one given, unless that is not possible."""
        if engine == "eager":
            return engine
        try:
            self._make(program, engine)
        except Unsupported as error:
            if not self.may_change:
                say_once(
                    f"{_name(program)}: no native training step, because it has {error}; it uses the compiled engine."
                )
            return self.usable(program, self.execution.instead_of_native)
        except (InterfaceChanged, NoCompiler) as error:  # an error that the user cannot fix
            return self._other(program, engine, str(error))
        except CannotCompile as error:
            if not self.may_change:
                raise
            return self._other(program, engine, str(error))
        except Exception as error:  # torch may raise anything for a step with user code
            if not self.may_change:
                raise
            return self._other(program, engine, f"{type(error).__name__}: {error}")
        return engine

    def _other(self, program: Program, engine: Engine, reason: str) -> Engine:
        """Return the engine that takes the place of one whose step cannot be made, and say why."""
        if steps_natively(engine) and self.execution.instead_of_native == "compiled":
            say_once(
                f"{_name(program)}: no native training step ({next(iter(reason.splitlines()), '')}); "
                "it uses the compiled engine."
            )
            return self.usable(program, "compiled")
        say_once(f"training with the eager engine: {reason}")
        self.progress.say("training")
        return "eager"

    def _make(self, program: Program, engine: Engine) -> None:
        key = (engine, repr([os.environ.get(name) for name in (*VARIABLES, "XDG_CACHE_HOME", "HOME")]))
        if self.may_change and key in _cannot_compile:
            raise CannotCompile(_cannot_compile[key])
        device = self.execution.device
        is_built, seconds = (
            (native_is_built, "about 2 s") if steps_natively(engine) else (step_is_built, "20 to 60 s")
        )
        try:
            if device.type != "cpu" or not is_built(program):
                self.progress.say(
                    f"compiling training step {self.number}, {seconds}, cached for later runs", at_once=True
                )
            with self.progress.aside():
                step_function(engine, program, device)
        except (CannotCompile, NoCompiler) as error:
            _cannot_compile[key] = str(error)
            raise
        self.progress.say("training")


def _name(program: Program) -> str:
    return type(program.network).__name__
