"""What looks do: errors at effects on thresholds, effects that are found, seeds that are saved, and who gets more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modulab.claims import dry_run, spending
from modulab.claims.claim import Claim, Setting
from modulab.claims.comparisons import contrast
from modulab.claims.dry_run import count_map_networks, count_networks
from modulab.claims.evidence import Estimate, Evidence, Statistic, estimate
from modulab.claims.judgement import Judgement, judge
from modulab.claims.looks import Look, worth_more_seeds
from modulab.claims.presets import PRESETS, experiment_overrides
from modulab.claims.registry import CLAIMS
from modulab.claims.rules import Criterion, Finding, Outcome, Region
from modulab.claims.run import Experiment
from modulab.claims.spending import judge_in_looks, networks_of
from modulab.results.store import load_results
from modulab.sweep.planned import train_planned
from tests.claims.worlds import null_world, shuffle_arms, simulate, true_world

MULTIPLES = (1, 2, 4)
FIRST = 10
REPEATS = 200
ABOVE_ZERO = Region(low=0.0)


def mean(means):
    return means[..., 0]


def greater(means):
    return means.max(axis=-1)


@dataclass
class World:
    """Criteria over seeds that have been seen so far, each with columns and a statistic of its own."""

    columns: list[np.ndarray]
    statistics: Sequence[Statistic]
    region: Region
    seeds: int = FIRST
    drawn: Counter[int] = field(default_factory=Counter)

    def criterion(self, place: int) -> Criterion:
        def find(_: Mapping[str, Evidence]) -> Estimate:
            self.drawn[place] = max(self.drawn[place], self.seeds)
            return estimate(self.columns[place][: self.seeds], self.statistics[place])

        return Criterion("", "", find, self.region)

    def claim(self, settings: bool = False) -> Claim:
        criteria = tuple(self.criterion(place) for place in range(len(self.columns)))
        parts = tuple(Setting({"at": str(place)}, (each,)) for place, each in enumerate(criteria))
        return Claim(
            "C0", "", "", "", "", (), () if settings else criteria, lambda _: [], (),
            settings=parts if settings else (),
        )  # fmt: skip

    def look_by_look(self, claim: Claim) -> Judgement:
        found = None
        for number, multiple in enumerate(MULTIPLES, start=1):
            self.seeds = multiple * FIRST
            found = judge(claim, {}, Look(number, MULTIPLES), found)
            if not found.open:
                break
        assert found is not None
        return found


Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def normal(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return random.normal(size=shape)


def skewed(random: np.random.Generator, shape: tuple[int, int], sigma: float = 0.5) -> np.ndarray:
    drawn = np.exp(sigma * random.normal(size=shape)) - np.exp(sigma**2 / 2)
    return drawn / np.sqrt(np.expm1(sigma**2) * np.exp(sigma**2))


def mildly_skewed(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return skewed(random, shape, 0.3)


def run(
    effects: Sequence[float],
    draw: Draw = normal,
    statistic: Statistic = mean,
    columns: int = 1,
    region: Region = ABOVE_ZERO,
    repeats: int = REPEATS,
) -> tuple[Counter[str], float]:
    """Return how often each verdict is given, and the mean number of seeds of a criterion.

    Effects are in standard deviations of one network, of each of a criterion's columns.
    """
    random = np.random.default_rng(len(effects) + columns)
    verdicts: Counter[str] = Counter()
    seeds = 0
    for _ in range(repeats):
        drawn = [effect + draw(random, (MULTIPLES[-1] * FIRST, columns)) for effect in effects]
        world = World(drawn, [statistic] * len(effects), region)
        verdicts[world.look_by_look(world.claim()).verdict] += 1
        seeds += sum(world.drawn.values())
    return verdicts, seeds / repeats / len(effects)


@pytest.mark.parametrize(
    ("effects", "draw"),
    [
        ([0.0], normal),
        ([0.0], skewed),
        ([0.0, 5.0, 5.0], normal),
        ([0.0, 5.0, 5.0], skewed),
        ([0.0, 0.0, 0.0], normal),
        ([0.0, 0.0, 0.0], mildly_skewed),
    ],
)
def test_stopping_when_decided_errs_to_either_side_in_at_most_5_of_100(effects, draw) -> None:
    verdicts, _ = run(effects, draw)
    assert verdicts["supported"] <= 0.05 * REPEATS
    assert verdicts["not supported"] <= 0.05 * REPEATS


def test_the_greater_of_two_at_its_threshold_is_called_either_way_in_at_most_5_of_100() -> None:
    # One clearly greater column, as a shortfall mostly has; at a tie the greater of two means is biased upwards.
    def one_greater(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        return random.normal(size=shape) - np.array([0.0, 1.5])

    verdicts, _ = run([0.0], one_greater, greater, 2)
    assert verdicts["supported"] <= 0.05 * REPEATS
    assert verdicts["not supported"] <= 0.05 * REPEATS


def test_two_ends_that_are_both_thresholds_are_not_called_supported() -> None:
    verdicts, _ = run([0.5], region=Region(-0.5, 0.5))
    assert verdicts["supported"] <= 0.05 * REPEATS
    assert verdicts["not supported"] <= 0.05 * REPEATS


def test_effects_that_the_first_look_misses_are_found_with_fewer_seeds_than_the_ceiling() -> None:
    verdicts, seeds = run([0.8], repeats=100)
    assert verdicts["supported"] >= 90
    assert FIRST < seeds < 0.75 * MULTIPLES[-1] * FIRST
    verdicts, seeds = run([-0.8, 3.0, 3.0], repeats=100)
    assert verdicts["not supported"] >= 80
    assert seeds < 0.6 * MULTIPLES[-1] * FIRST


def test_clear_effects_take_the_first_look_alone() -> None:
    for effect, verdict in ((5.0, "supported"), (-5.0, "not supported")):
        verdicts, seeds = run([effect], repeats=20)
        assert verdicts[verdict] == 20
        assert seeds == FIRST


def test_effects_on_their_threshold_mostly_stop_before_the_ceiling() -> None:
    _, seeds = run([0.0], repeats=100)
    assert seeds < 0.75 * MULTIPLES[-1] * FIRST


def test_a_decided_setting_keeps_its_answer_and_its_seeds_while_another_has_more() -> None:
    clear, close = (effect + (-1.0) ** np.arange(40)[:, None] for effect in (5.0, 0.5))
    clear[FIRST:] = -50.0
    world = World([clear, close], [mean, mean], ABOVE_ZERO)
    found = world.look_by_look(world.claim(settings=True))
    assert [finding.outcome for finding in found.findings] == ["holds", "holds"]
    assert [finding.estimate.seeds for finding in found.findings] == [10, 40]
    assert world.drawn == {0: 10, 1: 40}


def finding(outcome: Outcome, value: float, half_width: float) -> Finding:
    criterion = Criterion("", "", lambda _: shown, ABOVE_ZERO)
    shown = Estimate(value, value - half_width, value + half_width, FIRST)
    return Finding(criterion, shown, outcome)


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([finding("unclear", 0.8, 1.0), finding("holds", 2.0, 1.0)], [0]),
        ([finding("unclear", 0.8, 1.0), finding("fails", -2.0, 1.0)], []),
        ([finding("unclear", 0.8, 1.0), finding("unclear", 0.1, 1.0)], []),
        ([finding("unclear", 0.8, 1.0), finding("unclear", 0.1, 1.0), finding("unclear", -0.8, 1.0)], [2]),
        ([finding("unclear", np.nan, np.nan)], []),
    ],
    ids=["undecided", "decided", "cannot be supported", "may still fail", "too few"],
)
def test_only_criteria_that_may_decide_their_setting_have_more_seeds(findings, expected) -> None:
    assert worth_more_seeds(findings, Look(1, MULTIPLES)) == expected
    assert worth_more_seeds(findings, Look(3, MULTIPLES)) == []


ARMS = ("far", "near", "level", "unused")
EFFECTS = {"far": 5.0, "near": 0.5, "level": 0.0, "unused": 0.0}


def row(arm: str, seed: int) -> dict[str, object]:
    value = EFFECTS[arm] + (0.0 if arm == "level" else (-1.0) ** seed)
    return {
        "run_id": f"{arm}-{seed}", "status": "completed", "config.arm": arm, "config.seed": seed, "value": value,
    }  # fmt: skip


@pytest.mark.parametrize("status", ["completed", "missing"])
def test_networks_of_a_criterion_are_those_of_its_arms_with_results_or_without(status: str) -> None:
    rows = pd.DataFrame([row(arm, seed) for arm in ARMS for seed in range(3)]).assign(status=status)
    criterion = Criterion("", "", contrast("one", "value", {"arm": "far"}, {"arm": "level"}))
    expected = {("one", f"{arm}-{seed}") for arm in ("far", "level") for seed in range(3)}
    assert networks_of([criterion], {"one": Evidence(rows)}) == expected
    assert networks_of([criterion], {"one": Evidence(rows.drop(columns="value"))}) == expected


class Trainer:
    """Stands in for training: remembers what it was asked for, and may be interrupted at a look."""

    def __init__(self, interrupt_at: int = 0) -> None:
        self.asked: list[tuple[int, dict[str, int]]] = []
        self.interrupt_at = interrupt_at

    def __call__(
        self, experiments: Sequence[Experiment], look: Look
    ) -> tuple[dict[str, list[str]], dict[str, str]]:
        if look.number == self.interrupt_at:
            raise KeyboardInterrupt
        found: dict[str, list[str]] = {}
        for experiment in experiments:
            seeds = int(experiment.overrides[-1].partition("=")[2])
            arms = {run_id.split("-")[0] for run_id in experiment.arms} or set(ARMS)
            found[experiment.name] = [f"{arm}-{seed}" for arm in sorted(arms) for seed in range(seeds)]
            self.asked.append((look.number, dict.fromkeys(sorted(arms), seeds)))
        return found, {}


def two_claims() -> list[Claim]:
    def compared(name: str, *arms: str) -> Claim:
        settings = tuple(
            Setting(
                {"arm": arm},
                (Criterion("", "", contrast("one", "value", {"arm": arm}, {"arm": "level"}), ABOVE_ZERO),),
            )
            for arm in arms
        )
        return Claim(name, "", "", "", "", ("one",), (), lambda _: [], (), settings=settings)

    return [compared("C1", "far"), compared("C2", "far", "near")]


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    rows = pd.DataFrame([row(arm, seed) for arm in ARMS for seed in range(40)])
    monkeypatch.setattr(
        spending, "asked_rows", lambda _, run_ids: rows.loc[rows["run_id"].isin(run_ids)].reset_index()
    )
    return [Experiment("one", ("population.seeds=10",), Path("one"))]


def test_more_seeds_go_to_arms_of_undecided_criteria_alone(simulated: list[Experiment]) -> None:
    train = Trainer()
    found = judge_in_looks(two_claims(), simulated, MULTIPLES, train)
    assert train.asked[0] == (1, dict.fromkeys(sorted(ARMS), 10))
    assert train.asked[1:] == [(2, {"level": 20, "near": 20}), (3, {"level": 40, "near": 40})]
    first, second = found.judgements
    assert first.verdict == "supported"
    assert str(first.spent) == "40 in 1 of 3 looks, at most 100"
    assert str(second.spent) == "100 in 3 of 3 looks, at most 130"
    assert len(found.results["one"]) == 100


def test_an_interrupted_look_is_asked_for_again_as_before(simulated: list[Experiment]) -> None:
    whole, stopped, resumed = Trainer(), Trainer(interrupt_at=3), Trainer()
    expected = judge_in_looks(two_claims(), simulated, MULTIPLES, whole)
    with pytest.raises(KeyboardInterrupt):
        judge_in_looks(two_claims(), simulated, MULTIPLES, stopped)
    found = judge_in_looks(two_claims(), simulated, MULTIPLES, resumed)
    assert stopped.asked == whole.asked[:2]
    assert resumed.asked == whole.asked
    assert [str(each.spent) for each in found.judgements] == [str(each.spent) for each in expected.judgements]


def test_a_claim_alone_has_the_verdict_that_it_has_beside_others(simulated: list[Experiment]) -> None:
    together = judge_in_looks(two_claims(), simulated, MULTIPLES, Trainer()).judgements
    alone = judge_in_looks(two_claims()[:1], simulated, MULTIPLES, Trainer()).judgements
    assert [each.estimate for each in alone[0].findings] == [each.estimate for each in together[0].findings]
    assert alone[0].spent == together[0].spent


def through_looks(claim: Claim, results: Mapping[str, pd.DataFrame]) -> Judgement:
    """Judge a claim by results at the ceiling's seeds, of which each look sees its own."""
    found = None
    for number, multiple in enumerate(MULTIPLES, start=1):
        evidence: dict[str, Evidence] = {}
        for name, rows in results.items():
            seeds = sorted(set(rows["config.seed"].tolist()))
            seen = seeds[: multiple * len(seeds) // MULTIPLES[-1]]
            evidence[name] = Evidence(rows.loc[rows["config.seed"].isin(seen)].reset_index(drop=True))
        found = judge(claim, evidence, Look(number, MULTIPLES), found)
        if not found.open:
            break
    assert found is not None
    return found


@pytest.mark.slow
def test_a_claim_is_supported_look_by_look_where_it_is_true_and_not_by_chance() -> None:
    random = np.random.default_rng(11)
    claim = next(claim for claim in CLAIMS if claim.name == "C6b")

    def verdicts(repeats: int, make: Callable[[str], pd.DataFrame]) -> Counter[str]:
        return Counter(
            through_looks(claim, {each: make(each) for each in claim.experiments}).verdict
            for _ in range(repeats)
        )

    null = verdicts(40, lambda each: simulate(each, null_world, random, seeds=40))
    shuffled = verdicts(40, lambda each: shuffle_arms(simulate(each, true_world, random, seeds=40), random))
    true = verdicts(10, lambda each: simulate(each, true_world, random, spread=0.02, seeds=40))
    assert null["supported"] + shuffled["supported"] <= 0.05 * 80
    assert true["supported"] == 10


def test_further_seeds_of_an_arm_leave_rows_as_they_are_and_other_arms_alone(tmp_path: Path) -> None:
    overrides = [
        "+population.grid={noise.scale: [0.0, 0.2]}", "training.steps=4", "training.batch_size=8",
        "architecture.width=4", "probes.num_samples=16", "trainer.engine=eager", "trainer.progress=off",
    ]  # fmt: skip
    first = train_planned([*overrides, "population.seeds=2"], tmp_path)
    before = load_results(tmp_path).set_index("run_id")
    noisy = before.index[before["config.noise.scale"] == 0.2][0]
    again = train_planned([*overrides, "population.seeds=4"], tmp_path, like=[noisy])
    after = load_results(tmp_path).set_index("run_id")
    assert len(after) == 6
    assert sorted(after.loc[again, "config.seed"]) == [0, 1, 2, 3]
    assert set(after.loc[again, "config.noise.scale"]) == {0.2}
    pd.testing.assert_frame_equal(after.loc[first], before.loc[first])


def test_a_dry_run_counts_the_arms_that_decide_at_the_ceiling_and_all_arms_at_the_first_look() -> None:
    # 6 scales and 5 strengths at 10 seeds; noise 0, 0.1, 0.2, 0.4 and the 3 strengths that match them decide.
    _, rows, note = count_networks("quick", ["C2"])
    assert [row[2:] for row in rows] == [["110", str(110 + 7 * 30)]]
    assert note.startswith("110 to 320 networks in all, in up to 3 looks.")
    _, rows, note = count_map_networks("smoke", ["C1"])
    assert rows[0][2] == "32"
    assert note == "32 networks in all."


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_networks_that_decide_have_other_seeds_than_those_that_thresholds_were_chosen_by(preset: str) -> None:
    for experiment in ("regulariser", "duration"):
        assert "seed=1000" in experiment_overrides(experiment, preset)
    assert max(PRESETS[preset].looks) * 50 <= 9000, "maps begin at seed 10000"


def test_a_dry_run_counts_what_planning_every_seed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    of_few = count_networks("quick", ["C1"])
    monkeypatch.setattr(dry_run, "_PLANNED_SEEDS", 10**6)
    assert count_networks("quick", ["C1"]) == of_few
