from pathlib import Path

import pytest
import torch
import yaml

from modulab.schema import import_target
from modulab.tasks.base import mixing_matrix

CONFIGS = Path(__file__).parents[2] / "configs" / "task"
SUPPORTS = {
    "regression": ["full", "band", "corner", "cross", "cells"],
    "classification": ["full", "band", "corner", "cross", "cells", "labels"],
    "digits": ["full", "labels"],
    "parity": ["full", "labels"],
    "modular_arithmetic": ["full", "pairs"],
    "copying": [None],
    "sum_of_products": ["full", "band", "corner", "cross", "cells"],
    "shared_output": ["full", "band", "corner", "cross", "cells"],
    "overlap": ["full", "band", "corner", "cross", "cells"],
    "bump_position": ["full", "corner"],
    "sources": [None],
    "domains": [None],
    "causal": [None],
    "retina": [None],
    "bit_memory": [None],
    "pulse_sum": [None],
    "projected": [None],
    "procedural": [None],
    "formulas": [None],
    "grid_world": [None],
}
"""The supports of each task; None for one that has no such setting."""
SIZES = {
    "regression": {"bump_grid"},
    "parity": {"bits"},
    "modular_arithmetic": {"modulus"},
    "copying": {"length", "symbols"},
    "sum_of_products": {"bump_grid", "products"},
    "shared_output": {"bump_grid"},
    "overlap": {"bump_grid", "inputs", "share"},
    "bump_position": {"side", "direction"},
    "domains": {"symbols"},
    "retina": {"outputs"},
    "bit_memory": {"length"},
    "pulse_sum": {"modulus", "length"},
    "projected": {"features", "module_features"},
    "procedural": {"length", "symbols"},
    "formulas": {"formula"},
    "grid_world": {"flags", "imitate"},
}
"""Settings besides the number of modules and the code that sizes depend on."""
MANY_POINTS = {
    "parity": {"bits": 24},
    "modular_arithmetic": {"modulus": 101},
    "copying": {"length": 12},
    "procedural": {"length": 12},
    "bit_memory": {"length": 24},
    "grid_world": {"size": 1000},
}
"""Settings with which a task has so many points that few are drawn twice."""
UNCHANGED = ("shared_output", "sources", "domains", "causal", "retina", "projected", "formulas", "grid_world")
"""Tasks that have no other function for module 1."""
MODULES = {"bump_position": 2, "sources": 2, "retina": 2, "formulas": 2, "grid_world": 2}
"""Tasks that have one number of modules."""
REGIONS = [
    (name, support, region)
    for name, names in SUPPORTS.items()
    for support in names
    for region in ("train", "full", "withheld")
    if region != "withheld" or support not in (None, "full")
]


def chosen(support):
    return {} if support is None else {"support": support}


def modules_of(name, modules):
    return {"modules": MODULES.get(name, modules)}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_config_file_spells_every_key_of_its_task_and_opens_with_its_meaning(make_task, path):
    text = path.read_text()
    config = yaml.safe_load(text)
    schema = import_target(config["_target_"], "task._target_")
    assert text.startswith("# ")
    assert set(config) == {"_target_", *schema.model_fields}
    assert all(not field.is_required() or field.description for field in schema.model_fields.values())
    assert make_task(path.stem).name == path.stem == config["name"]


def test_every_task_file_is_tested_here():
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted(SUPPORTS)


@pytest.mark.parametrize(("name", "support", "region"), REGIONS)
def test_draws_depend_on_nothing_but_each_points_key_and_counter(make_task, points, name, support, region):
    functions = {"functions": ["sine", "cosine", "fourier", "teacher"]} if name == "regression" else {}
    task = make_task(name, **modules_of(name, 4), **chosen(support), **functions)
    keys, counters = points(7, 53)
    samples = task.draw(keys, counters, region, "train")
    generator = torch.Generator().manual_seed(0)
    members = torch.randperm(7, generator=generator)
    order = torch.randperm(53, generator=generator)
    for some_members, some_points in ((members, order), (members[:1], order), (members[:3], order[:17])):
        again = task.draw(
            keys[some_members], counters[some_members][:, some_points].contiguous(), region, "train"
        )
        assert torch.equal(again.inputs, samples.inputs[some_members][:, some_points])
        assert torch.equal(again.targets, samples.targets[some_members][:, some_points])
    for member in range(7):
        alone = task.draw(keys[member : member + 1], counters[:1, 5:6], region, "train")
        assert torch.equal(alone.inputs[0, 0], samples.inputs[member, 5])
        assert torch.equal(alone.targets[0, 0], samples.targets[member, 5])


@pytest.mark.parametrize(("name", "support", "region"), REGIONS)
def test_sizes_and_targets_are_as_the_task_declares(make_task, points, name, support, region):
    task = make_task(name, **modules_of(name, 3), **chosen(support))
    samples = task.draw(*points(2, 9), region, "test")
    assert samples.inputs.shape == (2, 9, task.in_features)
    assert samples.targets.shape == (2, 9, task.num_targets)
    if task.loss == "cross_entropy":
        assert set(samples.targets.flatten().tolist()) <= set(range(task.outputs_per_module))
    assert task.withholds == (support not in (None, "full"))


# Source sets and channels are the same for all members: their seeds are settings of the task. A retina has 256 images.
@pytest.mark.parametrize("name", [name for name in SUPPORTS if name not in ("sources", "domains", "retina")])
def test_different_members_and_counters_give_different_points(make_task, points, name):
    inputs = (
        make_task(name, **modules_of(name, 3), **MANY_POINTS.get(name, {}))
        .draw(*points(5, 100), "train", "train")
        .inputs
    )
    assert len(inputs.flatten(0, 1).unique(dim=0)) == 500


@pytest.mark.parametrize("name", list(SUPPORTS))
def test_only_sizes_are_structural(make_task, name):
    structural = {
        key
        for key, field in type(make_task(name)).model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("structural")
    }
    assert structural == {"modules", "code"} | SIZES.get(name, set())


@pytest.mark.parametrize(("name", "support", "region"), REGIONS)
def test_change_leaves_every_input_and_the_targets_of_other_modules(make_task, points, name, support, region):
    task = make_task(name, **modules_of(name, 3), **chosen(support))
    samples = task.draw(*points(3, 40), region, "train")
    if name in UNCHANGED:
        assert task.changed(samples) is None
        return
    for module in range(task.modules):
        changed = task.changed(samples, module)
        assert torch.equal(changed.inputs, samples.inputs)
        kept = (changed.targets == samples.targets).all(dim=1).unflatten(1, (task.modules, -1))
        expected = torch.arange(task.modules) != module
        assert torch.equal(kept, expected[:, None].expand_as(kept))
    assert torch.equal(task.changed(samples).targets, task.changed(samples, 0).targets)


def test_mixing_is_a_seeded_rotation_or_reflection_and_the_identity_without(make_task):
    assert torch.equal(mixing_matrix(make_task("regression", modules=4)), torch.eye(4))
    first, second = (
        mixing_matrix(make_task("regression", modules=4, code="mixed", mixing_seed=seed)) for seed in (0, 1)
    )
    for matrix in (first, second):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(4), atol=1e-6, rtol=0)
    assert (first - second).abs().max() > 0.1


def test_mixing_matrices_are_uniform_over_rotations(make_task):
    matrices = torch.stack(
        [
            mixing_matrix(make_task("regression", modules=3, code="mixed", mixing_seed=seed))
            for seed in range(150)
        ]
    )
    # Haar measure: each entry has mean 0 and mean square 1/3, with standard errors near 0.05 here.
    assert matrices.mean(dim=0).abs().max() < 0.2
    assert (matrices.square().mean(dim=0) - 1 / 3).abs().max() < 0.12
