"""Sweepers that read what jobs return."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from modulab.sweep.results import load_results
from tests.command_line import Command

LEARNABLE = [
    "training.steps=800", "training.batch_size=64", "training.curve_every=400", "training.learning_rate=0.01",
    "architecture.width=16", "data.num_samples=256", "probes.num_samples=256", "probes.repeats=1",
    "trainer.accelerator=cpu", "trainer.engine=eager", "trainer.threads=1",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Optuna 2's own dependencies
def test_optuna_finds_the_noise_that_makes_networks_robust_in_parallel_batches(command: Command) -> None:
    search = [
        "train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=16", "hydra.sweeper.n_jobs=8",
        "hydra.sweeper.sampler.seed=1", "sweep.objective=robustness/poisson@0.3",
        "noise.scale=interval(0,3)", "population.seeds=2", *LEARNABLE,
    ]  # fmt: skip
    code, _, err = command(*search, "hydra.sweep.dir=search")
    assert code == 0, err
    found = OmegaConf.load("search/optimization_results.yaml")
    results = load_results("search")
    assert len(results) == 32
    # Eight trials of two seeds train together.
    assert len(list(Path("search/populations").glob("*.ckpt"))) == 2
    by_scale = results.groupby("config.noise.scale")["robustness/poisson@0.3"].mean()
    assert found["best_value"] == pytest.approx(by_scale.min(), abs=1e-12)
    assert found["best_params"]["noise.scale"] == pytest.approx(by_scale.idxmin(), abs=1e-12)
    # Some noise beats next to none and far too much.
    assert 0.05 < found["best_params"]["noise.scale"] < 1
    code, _, err = command("train", *LEARNABLE, "population.seeds=2", "hydra.run.dir=none")
    assert code == 0, err
    assert found["best_value"] < load_results("none")["robustness/poisson@0.3"].mean()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_trial_that_fails_does_not_end_a_search(command: Command) -> None:
    search = [
        "train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=4",
        "hydra.sweeper.max_failure_rate=1.0", "hydra.sweeper.sampler.seed=3", "sweep.objective=error/test",
        "training.learning_rate=choice(0.001,1e30)", *LEARNABLE[1:3], *LEARNABLE[4:], "training.steps=20",
    ]  # fmt: skip
    code, out, err = command(*search, "training.optimiser=sgd", "hydra.sweep.dir=search")
    assert code == 0, err
    assert re.search(r"diverged: the loss or a weight ceased to be finite at step", out)
    assert (
        OmegaConf.load("search/optimization_results.yaml")["best_params"]["training.learning_rate"] == 0.001
    )
