"""Modules found in networks: those of premodular ones, none in untrained ones, the same in any company."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml

from modulab.errors import ConfigError
from modulab.metrics.communities.found import FoundModules
from modulab.metrics.measure import find_measure, find_measures
from modulab.metrics.probe import make_probe
from modulab.networks.base import NetworkPopulation
from modulab.streams import member_keys
from tests.metrics.populations import CONFIGS, make_network, make_settings, make_task, probe_of
from tests.perceptrons import planted

KEYS = ["found_louvain", "found_spectral", "found_block_model", "found_activity", "found_influence"]
EXTRA_KEYS = ["found_leiden", "found_infomap"]


def configured(**changes: Any) -> dict[str, Any]:
    """Return the measures of probes=communities_extra."""
    found: dict[str, Any] = {}
    for name in ("communities", "communities_extra"):
        found |= yaml.safe_load((CONFIGS / "probes" / f"{name}.yaml").read_text())["measures"]
    return {key: {**value, **changes} if key.startswith("found_") else value for key, value in found.items()}


def measure(key: str, **changes: Any) -> FoundModules:
    found = find_measure(configured(**changes)[key], key)
    assert isinstance(found, FoundModules)
    return found


@pytest.mark.parametrize("key", [*KEYS, *EXTRA_KEYS])
def test_modules_of_premodular_networks_are_found(key: str) -> None:
    task = make_task()
    network = make_network(task, 48, members=2, cross_connections=0.0)
    found = measure(key, restarts=2, randomised=0).take(probe_of(task, network, num_samples=256))
    name = key.removeprefix("found_")
    assert found[f"communities/{name}_modules"].tolist() == [2, 2]
    assert found[f"communities/{name}_agreement"].tolist() == pytest.approx([1, 1])
    assert found[f"communities/{name}_rand"].tolist() == pytest.approx([1, 1])
    assert found[f"communities/{name}_stability"].tolist() == pytest.approx([1, 1])


def test_nothing_is_found_in_dense_untrained_networks_beyond_chance() -> None:
    task = make_task()
    probe = probe_of(task, make_network(task, 48, members=4), num_samples=64)
    found = measure("found_block_model", restarts=1).take(probe)
    assert found["communities/block_model_modules"].tolist() == [1, 1, 1, 1]
    assert found["communities/block_model_score"].tolist() == [0, 0, 0, 0]
    louvain = measure("found_louvain", restarts=1, randomised=19).take(probe)
    assert louvain["communities/louvain_modules"].min() > 1
    assert louvain["communities/louvain_z"].abs().max() < 3
    assert louvain["communities/louvain_p"].median() > 0.05


def test_premodular_weights_and_activities_are_more_modular_than_random_graphs() -> None:
    task = make_task()
    network = make_network(task, 24, members=2, cross_connections=0.0)
    probe = probe_of(task, network, num_samples=256)
    for key in ("found_louvain", "found_activity", "found_influence"):
        found = measure(key, restarts=1, randomised=9).take(probe)
        name = key.removeprefix("found_")
        assert found[f"communities/{name}_p"].tolist() == [0.1, 0.1]  # 1 / 10, the least that 9 can give
        assert found[f"communities/{name}_null"].max() < found[f"communities/{name}_score"].min()


def test_what_is_found_does_not_depend_on_other_members() -> None:
    task = make_task()
    network = make_network(task, 12, members=3)
    settings = make_settings(num_samples=64, measures=configured(restarts=2, randomised=2))
    measures = [each for key, each in find_measures(settings).items() if key != "layer_similarity"]
    together = make_probe(task, network, member_keys([5, 6, 7]), settings)
    alone = make_probe(
        task,
        NetworkPopulation(network.network, network.parameters[1:2].repeat(2, 1)),
        member_keys([6, 6]),
        settings,
    )
    for each in measures:
        own, others = each.take(alone), each.take(together)
        for name, values in own.items():
            assert torch.equal(values[:1].nan_to_num(-9), others[name][1:2].nan_to_num(-9)), name


def test_diverged_networks_have_no_modules() -> None:
    task = make_task()
    network = make_network(task, 6, members=2)
    parameters = network.parameters.clone()
    parameters[0] = torch.nan
    probe = probe_of(task, NetworkPopulation(network.network, parameters), num_samples=32)
    for key in KEYS:
        found = measure(key, restarts=1, randomised=2).take(probe)
        name = key.removeprefix("found_")
        assert torch.isnan(found[f"communities/{name}_modules"]).tolist() == [True, False], key


@pytest.mark.parametrize(
    ("key", "changes", "message"),
    [
        ("found_louvain", {"graph": "modulab.metrics.probe.make_probe"}, "makes no graphs of units"),
        ("found_louvain", {"randomised": 1}, "Ask for 2 or more"),
        ("enrichment", {"of": "found_activty"}, "Did you mean 'found_activity'"),
        ("enrichment", {"of": "layer_similarity"}, "is not a measure that finds modules"),
    ],
)
def test_wrong_settings_are_refused_before_training(key: str, changes: dict[str, Any], message: str) -> None:
    measures = configured()
    measures[key] = {**measures[key], **changes}
    with pytest.raises(ConfigError, match=message):
        find_measures(make_settings(measures=measures))


def test_missing_extra_is_named_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "leidenalg", None)
    with pytest.raises(ConfigError, match=r"probes.measures.found_leiden: .*modulab\[communities\]"):
        find_measures(make_settings(measures=configured()))


def test_a_search_says_how_far_it_has_come() -> None:
    task = make_task()
    words: list[str] = []
    network = make_network(task, 6, members=2)
    settings = make_settings(num_samples=16)
    probe = make_probe(task, network, member_keys([0, 1]), settings, tell=words.append)
    measure("found_louvain", restarts=1, randomised=2).take(probe)
    assert words == [
        "searching network 1 of 2 (louvain)",
        "searching network 2 of 2 (louvain)",
        "searching random graphs, 1 of 2 (louvain)",
        "searching random graphs, 2 of 2 (louvain)",
    ]


@pytest.mark.parametrize(("randomised", "expected"), [(0, None), (9, None), (19, [2.0, 1.0])])
def test_modules_that_are_not_beyond_chance_are_one(randomised: int, expected: list[float] | None) -> None:
    task = make_task()
    weights = [
        torch.stack(
            [make_network(task, 20, members=2, cross_connections=share).weights[layer][1] for share in (0, 1)]
        )
        for layer in (0, 1)
    ]
    network = planted(weights, make_network(task, 20, members=2).biases, "relu")
    probe = probe_of(task, network, num_samples=64)
    found = measure("found_louvain", restarts=1, randomised=randomised).take(probe)
    significant = found.get("communities/louvain_significant")
    assert (None if significant is None else significant.tolist()) == expected
    assert found["communities/louvain_modules"][1] > 1
    alone = measure("found_block_model", restarts=1).take(probe)
    assert alone["communities/block_model_significant"].tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    "graph",
    [
        "weight",
        "activity",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("jacobian", "co_activation", "influence")),
    ],
)
def test_modules_of_untrained_networks_are_beyond_chance_in_few_of_a_hundred(graph: str) -> None:
    task = make_task()
    network = make_network(task, 20, members=40)
    draws = torch.Generator().manual_seed(0)
    sparse = planted(
        [each * (torch.rand(each.shape, generator=draws) < 0.5) for each in network.weights],
        network.biases,
        "relu",
    )
    probe = probe_of(task, sparse, num_samples=48)
    kind = f"modulab.metrics.communities.unit_graphs.{graph}_graph"
    found = measure("found_louvain", graph=kind, restarts=1, randomised=9).take(probe)
    p = found["communities/louvain_p"]
    assert (p <= 0.1).sum() <= 10  # 4 are expected, with a standard deviation of 1.9
    assert abs(p.mean() - 0.55) < 0.15
