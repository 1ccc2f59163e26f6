"""Time kinds of networks: packed by modulab, one fit per network by stock Lightning, and vectorised by torch.func.

All train the same networks of plain torch modules (plain_kinds.py) or their counterparts in modulab, on the same
points, without noise. Each contender has a process of its own and one warm-up turn; then they take turns, so that what
else the machine does falls on all alike. Times are those of the training steps alone, in microseconds per network and
step, as medians over turns: CPU time on one thread, and otherwise the time that passes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from modulab.arguments import ArgumentParser

CONTENDERS = {
    "native": "modulab, native",
    "compiled": "modulab, compiled",
    "eager": "modulab, eager",
    "lightning": "Lightning, one fit per network",
    "vmap": "torch.func vmap",
}
Clock = Callable[[], float]

SETTLE_SECONDS = 0.2
"""A pause before each turn, in which the threads of the last contender stop spinning."""
KINDS: dict[str, list[str]] = {
    "perceptron": ["task=regression"],
    "experts": ["task=regression", "architecture=experts"],
    "recurrent": ["task=parity", "architecture=recurrent"],
    "narrow_recurrent": ["task=parity", "architecture=recurrent", "architecture.width=16"],
    "convolution": ["task=digits", "architecture=convolution"],
    "attention": ["task=modular_arithmetic", "architecture=attention"],
    "torch": [
        "task=regression",
        "architecture=torch",
        "architecture.module={_target_: benchmark_contenders.plain_kinds.PlainPerceptron, width: 48}",
    ],
}
"""What of `modulab train` makes each kind."""


def main(arguments: list[str]) -> int:
    """Run every contender on every kind, and print a table."""
    parser = ArgumentParser(prog="scripts/benchmark kinds", description=__doc__)
    parser.add_argument("--population", type=int, default=64, help="networks trained at once; default 64")
    parser.add_argument("--steps", type=int, default=100, help="training steps of a turn; default 100")
    parser.add_argument("--turns", type=int, default=3, help="turns besides the first; default 3")
    parser.add_argument("--threads", type=int, default=1, help="threads of each contender; default 1")
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help=f"with commas between; default {','.join(KINDS)}"
    )
    parser.add_argument("--output", help="also write what was measured to a JSON file")
    options = parser.parse_args(arguments)
    chosen = options.kinds.split(",")
    found: dict[str, dict[str, Any]] = {}
    console = Console(width=None if sys.stdout.isatty() else 100)
    table = Table(caption=f"Microseconds per network and step (times the fastest). {_describe(options)}")
    table.add_column("")
    for heading in CONTENDERS.values():
        table.add_column(heading, justify="right")
    for kind in chosen:
        found[kind] = _time_in_turns(kind, options)
        fastest = min(time for time in map(_time_of, found[kind].values()) if time is not None)
        table.add_row(kind, *(_cell(found[kind][name], fastest) for name in CONTENDERS))
    console.print(table)
    for kind, contenders in found.items():
        for name, result in contenders.items():
            if result["reason"]:
                console.print(f"{kind}, {name}: {result['reason']}")
    if options.output:
        with open(options.output, "w") as file:
            json.dump(found, file, indent=1)
    return 0


def _describe(options: argparse.Namespace) -> str:
    threads = f"{options.threads} thread{'s' * (options.threads > 1)}"
    return (
        f"{options.population} networks, {options.steps} steps, {threads}; medians of {options.turns} turns."
    )


def _time_of(result: dict[str, Any]) -> float | None:
    return result.get("microseconds")


def _cell(result: dict[str, Any], fastest: float) -> str:
    microseconds = _time_of(result)
    if microseconds is None:
        return "none"
    return f"{microseconds:.0f} ({microseconds / fastest:.1f})"


def _time_in_turns(kind: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    workers = {name: _Worker(kind, name, options) for name in CONTENDERS}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.turns + 1):
        for name, worker in workers.items():
            turn = worker.turn()
            if turn is not None:
                turns[name].append(turn)
    return {
        name: {"reason": worker.end()}
        if len(turns[name]) <= options.turns
        else {key: median(turn[key] for turn in turns[name][1:]) for key in ("microseconds", "loss")}
        | {"turns": [turn["microseconds"] for turn in turns[name][1:]], "reason": worker.end()}
        for name, worker in workers.items()
    }


class _Worker:
    """A contender's process, which waits for its turns."""

    def __init__(self, kind: str, contender: str, options: argparse.Namespace) -> None:
        order = [kind, contender, *map(str, (options.population, options.steps, options.threads))]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmark_contenders.kinds", *order],
            env=os.environ | {"OMP_NUM_THREADS": str(options.threads)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True,
        )  # fmt: skip

    def turn(self) -> dict[str, float] | None:
        """Return what a turn measured, or None where the contender has failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        answer = self._process.stdout.readline()
        return json.loads(answer) if answer else None

    def end(self) -> str:
        """End the process; return the last line of what it said if it failed, and otherwise nothing."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        return said[-1] if self._process.returncode != 0 and said else ""


def _take_turns(kind: str, contender: str, population: int, steps: int, threads: int) -> None:
    """Answer each line of standard input with a line of what a turn measured."""
    import torch

    from modulab.config.composing import compose_checked, hydra_composer, plan_run

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    overrides = [
        *KINDS[kind], f"population.seeds={population}", f"training.steps={steps}", f"training.curve_every={steps}",
        "training.schedule=constant", "data.num_samples=1024", "training.batch_size=128", "noise=none",
    ]  # fmt: skip
    with hydra_composer() as compose:
        plan = plan_run(compose_checked(compose, overrides), overrides, compose)
    members = [run.member for run in plan.runs]
    torch.set_num_threads(threads)
    prepare = {"lightning": _lightning, "vmap": _vmap}.get(contender, _modulab(contender))
    clock = time.process_time if threads == 1 else time.perf_counter
    turn = prepare(kind, members, threads, clock)
    for _ in sys.stdin:
        time.sleep(SETTLE_SECONDS)
        seconds, loss = turn()
        answers.write(json.dumps({"microseconds": 1e6 * seconds, "loss": loss}) + "\n")


def _modulab(engine: str) -> Callable[..., Callable[[], tuple[float, float]]]:
    def prepare(kind: str, members: Any, threads: int, clock: Clock) -> Callable[[], tuple[float, float]]:
        import torch

        from modulab.training.data import PopulationData
        from modulab.training.engine import keep_freed_memory
        from modulab.training.learner import PopulationLearner

        del kind
        keep_freed_memory()
        torch.set_num_threads(1)
        device = torch.device("cpu")

        def turn() -> tuple[float, float]:
            learner = PopulationLearner(members, engine, device, threads)
            data = PopulationData(learner.row_members, 0, device)
            learner.read_data(data.offsets, data.counts)
            learner.on_fit_start()
            chunk = data.chunk(0)
            began = clock()
            learner.training_step(chunk)
            seconds = clock() - began
            return seconds / (len(members) * chunk.num_steps), float(learner.chunk_losses.mean())

        return turn

    return prepare


def _lightning(kind: str, members: Any, threads: int, clock: Clock) -> Callable[[], tuple[float, float]]:
    import torch
    from torch.utils.data import TensorDataset

    from benchmark_contenders.plain_kinds import loss_of, plain_module, points_of
    from benchmark_contenders.stock_lightning import TimedLearner, default_loader, stock_trainer

    del threads
    member = members[0]
    inputs, targets = points_of(member)

    class Learner(TimedLearner):
        def __init__(self) -> None:
            super().__init__()
            self.network = plain_module(kind, member)

        def on_train_epoch_start(self) -> None:
            self.started = clock()

        def on_train_epoch_end(self) -> None:
            self.ended = clock()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=member.training.learning_rate)

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            loss = loss_of(member.task, self.network(batch[0]), batch[1])
            self.losses.append(loss.detach())
            return loss

    def turn() -> tuple[float, float]:
        learner = Learner()
        steps, batch = member.training.steps, member.training.batch_size
        stock_trainer().fit(learner, default_loader(TensorDataset(inputs, targets), steps, batch))
        assert len(learner.losses) == steps
        return (learner.ended - learner.started) / steps, float(torch.stack(learner.losses).mean())

    return turn


def _vmap(kind: str, members: Any, threads: int, clock: Clock) -> Callable[[], tuple[float, float]]:
    import torch
    from torch.func import functional_call, grad_and_value, stack_module_state, vmap

    from benchmark_contenders.plain_kinds import loss_of, plain_module, points_of

    del threads
    member, number = members[0], len(members)
    training, task = member.training, member.task
    skeleton = plain_module(kind, member)
    inputs, targets = (torch.stack(each) for each in zip(*map(points_of, members), strict=True))

    def loss(parameters: dict[str, torch.Tensor], seen: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return loss_of(task, functional_call(skeleton, parameters, (seen,)), wanted)

    gradients = vmap(grad_and_value(loss))

    def turn() -> tuple[float, float]:
        parameters, _ = stack_module_state([plain_module(kind, each) for each in members])
        parameters = {name: value.detach() for name, value in parameters.items()}
        optimiser = torch.optim.Adam(parameters.values(), lr=training.learning_rate)
        rows = torch.arange(number)[:, None]
        losses: list[torch.Tensor] = []
        began = clock()
        for _ in range(training.steps):
            chosen = torch.randint(inputs.shape[1], (number, training.batch_size))
            found, values = gradients(parameters, inputs[rows, chosen], targets[rows, chosen])
            for name, parameter in parameters.items():
                parameter.grad = found[name]
            optimiser.step()
            losses.append(values)
        seconds = clock() - began
        return seconds / (number * training.steps), float(torch.stack(losses).mean())

    return turn


if __name__ == "__main__":
    kind_name, contender_name, *numbers = sys.argv[1:]
    _take_turns(kind_name, contender_name, *map(int, numbers))
