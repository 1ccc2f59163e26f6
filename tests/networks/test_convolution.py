"""Convolutional networks: what they compute, their modules, edges and noise, and that they read digits."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_contenders.plain_kinds import PlainConvolution
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import modulab
from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation
from modulab.networks.convolution import Convolution, ConvolutionArchitecture, Layer, unfold
from modulab.networks.perceptron import ACTIVATIONS
from modulab.partition import SHARED, Partition, even_shares
from modulab.regularisers import JacobianRegulariser, Pass, PowerRegulariser
from modulab.streams import member_keys, normals
from modulab.tasks.digits import DigitsTask
from modulab.training.learner import initialise
from modulab.training.program import network_of
from tests.command_line import Command
from tests.members import make_member
from tests.networks.kinds import check_compiled, check_measures, check_packing, check_taps
from tests.training.fitting import trained_parameters
from tests.training.plain_torch import check_follows_plain_torch

SMALL = """
    trainer.engine=eager trainer.accelerator=cpu trainer.progress=off trainer.threads=1 task=digits
    architecture=convolution architecture.channels=3 architecture.stride=1
    population.grid={architecture.cross_connections:[1.0,0.0]}
    training.steps=4 training.curve_every=2 training.batch_size=8 data.num_samples=16 probes.num_samples=8
    probes.repeats=1 probes.levels=[0.3]
"""


def make(task: str = "digits", seed: int = 0, noise: str = "none", **overrides: Any) -> Member:
    """Return a member with few channels and points."""
    small: dict[str, Any] = {
        "architecture__channels": 4, "training__steps": 4, "training__batch_size": 8, "data__num_samples": 32,
        "probes__num_samples": 8, "probes__repeats": 2, "probes__adaptation_steps": 2,
        "probes__levels": [0.3], "probes__ablated_fractions": [0.3], "probes__ranges": [2.0],
    }  # fmt: skip
    groups = {"task": task, "architecture": "convolution", "noise": noise}
    return make_member(groups, seed=seed, **(small | overrides))


def network(**changes: Any) -> Convolution:
    """Return a network that reads two images of 4 rows and 5 columns."""
    fields: dict[str, Any] = {
        "in_features": 40, "out_features": 4, "image": (4, 5), "channels": 3, "depth": 2, "kernel": 3, "stride": 1,
        "pool": "none", "activation": "relu",
    }  # fmt: skip
    return Convolution(**(fields | changes))


def drawn(shape: Convolution, members: int = 2, batch: int = 6) -> tuple[Tensor, Tensor]:
    """Return parameters and inputs of a network."""
    keys = member_keys(range(members))
    return 0.5 * normals(keys, 1, shape.num_parameters)[:, 0], normals(keys, batch, shape.in_features)


@pytest.mark.parametrize("pool", ["mean", "none"])
@pytest.mark.parametrize(
    ("image", "kernel", "stride", "depth"),
    [
        ((4, 5), 3, 1, 2), ((4, 5), 1, 1, 1), ((5, 4), 5, 2, 3), ((7, 2), 3, 3, 2), ((1, 6), 5, 1, 2),
        ((6, 1), 3, 2, 2), ((1, 1), 3, 2, 2),
    ],
)  # fmt: skip
def test_outputs_are_those_of_torch_layers_for_every_member(
    image: tuple[int, int], kernel: int, stride: int, depth: int, pool: str
) -> None:
    shape = network(
        in_features=2 * image[0] * image[1], image=image, kernel=kernel, stride=stride, depth=depth, pool=pool,
        activation="tanh",
    )  # fmt: skip
    parameters, inputs = drawn(shape, members=3)
    outputs = shape.forward(parameters, inputs)
    parts = shape.split(parameters)
    for member in range(3):
        module = PlainConvolution(shape)
        module.load_state_dict({name: part[member] for name, part in parts.items()})
        torch.testing.assert_close(outputs[member], module(inputs[member]))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_places_cut_from_a_long_kernel_read_nothing_but_padding(stride: int) -> None:
    layer = Layer(image=(2, 5), kernel=7, stride=stride)
    assert layer.extent == (3, 7)
    keys = member_keys([0])
    images, weights = normals(keys, 2, 2 * 5 * 4), normals(keys, 3, 2 * 3 * 7).view(1, 3, 2, 3, 7)
    sums = torch.bmm(weights.flatten(2), unfold(images, layer))
    whole = nn.functional.pad(weights[0], (0, 0, 2, 2))
    as_rows = images[0].view(2, 2, 5, 4).permute(3, 0, 1, 2)
    expected = nn.functional.conv2d(as_rows, whole, stride=stride, padding=3)
    torch.testing.assert_close(sums[0].unflatten(1, (*layer.written, 4)), expected.permute(1, 2, 3, 0))


def test_a_kernel_that_is_zero_off_its_centre_is_a_convolution_with_a_kernel_of_one() -> None:
    shape, single = network(), network(kernel=1)
    parameters, inputs = drawn(shape)
    parts = shape.split(parameters)
    for number in range(2):
        weight = parts[f"convolution.{number}.weight"]
        centre = weight[..., 1, 1].clone()
        weight.zero_()[..., 1, 1] = centre
    rows = torch.cat(
        [part[..., 1, 1].flatten(1) if part.dim() == 5 else part.flatten(1) for part in parts.values()], dim=1
    )
    torch.testing.assert_close(shape.forward(parameters, inputs), single.forward(rows, inputs))


def test_activity_moves_with_the_image() -> None:
    shape = network(in_features=2 * 9 * 8, image=(9, 8), activation="tanh")
    parameters, _ = drawn(shape)
    spot = torch.zeros(2, 1, 2, 9, 8)
    spot[:, 0, :, 3:5, 3:5] = normals(member_keys([3, 4]), 2, 4).view(2, 2, 2, 2)
    moved = spot.roll((1, -1), dims=(3, 4))
    before, after = (shape.record(parameters, each.flatten(2)).values for each in (spot, moved))
    for site in shape.sites:
        images = [values[site.name].unflatten(2, (9, 8)) for values in (before, after)]
        # Two layers of kernels of 3 spread what happens at the border by 2.
        expected = images[0].roll((1, -1), dims=(2, 3))[:, :, 2:-2, 2:-2]
        torch.testing.assert_close(images[1][:, :, 2:-2, 2:-2], expected)
        assert expected.std() > 0.1


def test_means_of_convolutions_with_a_kernel_of_one_do_not_depend_on_the_order_of_pixels() -> None:
    shape = network(pool="mean", kernel=1)
    parameters, inputs = drawn(shape)
    reordered = inputs.unflatten(2, (2, 20)).flip(3).flatten(2)
    torch.testing.assert_close(shape.forward(parameters, reordered), shape.forward(parameters, inputs))


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_the_last_jacobian_is_the_readout(pool: str) -> None:
    shape = network(pool=pool)
    parameters, inputs = drawn(shape)
    recording = shape.record(parameters, inputs)
    name, jacobian = next(iter(shape.output_jacobians(parameters, inputs, recording)))
    assert name == "channel.1"
    readout = shape.split(parameters)["write.weight"].unflatten(2, (3, -1))
    expected = readout / 20 if pool == "mean" else readout
    by_position = jacobian.unflatten(3, (20, 6))
    torch.testing.assert_close(by_position, expected[..., None].expand_as(by_position))


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_on_images_of_one_pixel_members_train_as_perceptrons(pool: str) -> None:
    members = [make("regression", seed, "poisson", architecture__pool=pool, **ONE_PIXEL) for seed in range(2)]
    perceptrons = [as_perceptron(member) for member in members]
    assert torch.equal(trained_parameters(members), trained_parameters(perceptrons))


def test_on_images_of_one_pixel_members_are_measured_as_perceptrons() -> None:
    member = make("regression", **ONE_PIXEL)
    found, skipped = check_measures(member)
    expected, _ = check_measures(as_perceptron(member))
    assert set(skipped) == {"combination", "functional_centred"}
    assert {"modularity/structural", "modularity/unit_specialisation"} <= set(found) == set(expected)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, msg=name)


def test_images_of_more_than_one_pixel_make_no_layers_even_where_each_channel_has_one_value() -> None:
    shape = network(kernel=1, stride=5, depth=1, pool="mean")
    assert shape.total_values == shape.total_units
    assert shape.connections == shape.layer_connections
    assert (shape.is_layered, shape.num_stages) == (False, 1)


ONE_PIXEL: dict[str, Any] = {"architecture__cross_connections": 0.3, "architecture__activation": "tanh"}


def as_perceptron(member: Member) -> Member:
    """Return a member with as many units in as many layers, and all else equal."""
    perceptron = make_member(architecture__width=4, architecture__depth=2, **ONE_PIXEL)
    return member.model_copy(update={"architecture": perceptron.architecture})


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("digits", {}),
        ("digits", {"architecture__pool": "mean", "architecture__activation": "sigmoid"}),
        ("classification", {"architecture__kernel": 5, "architecture__depth": 1}),
    ],
)
def test_members_end_in_the_same_bits_alone_and_in_company(task: str, changes: dict[str, Any]) -> None:
    check_packing(
        [
            make(
                task, seed, "poisson", noise__scale=0.2 * (1 + seed), architecture__initial_scale=1 + 0.2 * seed,
                architecture__cross_connections=(1.0, 0.0, 0.3)[seed], **changes,
            )
            for seed in range(3)
        ]
    )  # fmt: skip


@settings(max_examples=4)
@given(
    task=st.sampled_from(["digits", "classification"]),
    modules=st.integers(1, 3),
    channels=st.integers(3, 9),
    depth=st.integers(1, 3),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    pool=st.sampled_from(["mean", "none"]),
    activation=st.sampled_from(list(ACTIVATIONS)),
    noise=st.sampled_from(["none", "gaussian", "poisson"]),
    batch=st.integers(1, 9),
)
def test_packing_changes_nothing_whatever_the_settings(
    task: str, modules: int, channels: int, depth: int, kernel: int, stride: int, pool: str, activation: str,
    noise: str, batch: int,
) -> None:  # fmt: skip
    check_packing(
        [
            make(
                task, seed, noise, task__modules=modules, architecture__channels=channels, architecture__depth=depth,
                architecture__kernel=kernel, architecture__stride=stride, architecture__pool=pool,
                architecture__activation=activation, architecture__cross_connections=0.5 * seed,
                training__batch_size=batch, training__steps=2,
            )
            for seed in range(2)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("digits", {"training__optimiser": "adam"}),
        ("classification", {"architecture__pool": "mean", "training__optimiser": "adamw"}),
    ],
)
def test_a_member_follows_a_loop_of_torch_layers(task: str, changes: dict[str, Any]) -> None:
    member = make(
        task, 4, training__weight_decay=1e-3, training__steps=100, training__batch_size=16, training__curve_every=70,
        **changes,
    )  # fmt: skip
    shape = network_of(member)
    assert isinstance(shape, Convolution)
    check_follows_plain_torch(member, PlainConvolution(shape))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("task", ["digits", "classification", "regression"])
def test_channels_are_active_at_every_position(task: str, stride: int) -> None:
    member = make(task, architecture__stride=stride, architecture__depth=2)
    check_taps(member)
    positions = {
        "digits": ([64, 64], [16, 4]),
        "classification": ([2, 2], [1, 1]),
        "regression": ([1, 1], [1, 1]),
    }
    assert [site.positions for site in network_of(member).sites] == positions[task][stride - 1]


def test_inputs_read_are_the_images_pixel_after_pixel() -> None:
    shape = network()
    _, inputs = drawn(shape)
    read = shape.inputs_read(inputs)
    assert read.shape == (2, 2, 20 * 6)
    for image, pixel in itertools.product(range(2), range(20)):
        assert torch.equal(read[:, image, pixel * 6 : (pixel + 1) * 6], inputs[:, :, image * 20 + pixel])


def test_measures_that_need_no_layers_are_taken_and_the_others_skipped() -> None:
    member = make(task__support="labels", architecture__channels=2, architecture__stride=1)
    measures = member.probes.measures | {"forgetting": "modulab.metrics.forgetting.measure_forgetting"}
    member = member.model_copy(update={"probes": member.probes.model_copy(update={"measures": measures})})
    found, skipped = check_measures(member)
    assert set(skipped) == {"structural", "frame_null", "unit_specialisation", "ranges"}
    assert {
        "error/test", "modularity/functional", "modularity/ablation", "activity/mean", "error_under/poisson@0.3",
        "error_under/poisson_counts@0.3", "forgetting/others_rise",
    } <= set(found)  # fmt: skip


def test_measures_of_features_in_a_row_are_taken_and_the_others_skipped() -> None:
    found, skipped = check_measures(make("classification", task__support="band", probes__num_samples=32))
    assert set(skipped) == {"structural", "frame_null", "unit_specialisation"}
    assert {"modularity/functional", "error_under/weight_noise@0.3", "error_beyond/combination"} <= set(found)


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_a_premodular_network_is_modular_to_the_bit_and_forgets_nothing(pool: str) -> None:
    members = [
        make(seed=seed, architecture__cross_connections=share, architecture__pool=pool, training__steps=10)
        for seed, share in enumerate([0.0, 0.0, 1.0])
    ]
    shape = network_of(members[0])
    mask, parameters = initialise(members, shape)[0], trained_parameters(members)
    assert not parameters[mask == 0].any()
    measures = {
        "functional": "modulab.metrics.modularity.measure_functional",
        "forgetting": "modulab.metrics.forgetting.measure_forgetting",
    }
    probes = members[0].probes.model_copy(update={"measures": measures, "adaptation_learning_rate": 0.03})
    keys = member_keys([member.seed for member in members])
    found = measure_population(members[0].task, NetworkPopulation(shape, parameters), keys, probes, mask)
    assert found["modularity/functional"][:2].tolist() == [1.0, 1.0]
    assert found["modularity/functional"][2] < 0.9
    assert found["forgetting/others_rise"][:2].tolist() == [0.0, 0.0]
    assert found["forgetting/module_1"].isfinite().all()


def masks_of(shares: list[float], **changes: Any) -> tuple[Convolution, Tensor, Tensor]:
    shape = network(**changes)
    architectures = [
        ConvolutionArchitecture(
            name="", channels=shape.channels, depth=shape.depth, kernel=3, stride=1, pool="none", activation="relu",
            cross_connections=share, initial_scale=0.7,
        )
        for share in shares
    ]  # fmt: skip
    partition = Partition.of_equal_shares(2, shape.in_features // 2, shape.out_features // 2)
    mask, parameters = shape.initialise(architectures, partition, member_keys([9] * len(shares)))
    return shape, mask, parameters


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_premodular_masks_keep_exactly_the_kernels_within_modules(pool: str) -> None:
    shape, mask, parameters = masks_of([0.0, 1.0], channels=5, pool=pool)
    channels = torch.tensor(even_shares(5, 2))
    owners = {
        "input": torch.tensor([0, 1]), "channel.0": channels, "channel.1": channels,
        "output": torch.tensor([0, 0, 1, 1]),
    }  # fmt: skip
    for edges in shape.edges(mask):
        within = owners[edges.target][:, None] == owners[edges.source]
        assert torch.equal(edges.weights[0].bool(), within)
        assert edges.weights[1].all()
    assert all(shape.split(mask)[part.name].all() for part in shape.layout if not part.is_weight)
    assert not parameters[mask == 0].any()
    assert (parameters[:, -shape.out_features :] == 0).all()


def test_partial_masks_keep_whole_kernels_by_their_share_and_nest() -> None:
    shares = [0.0, 0.1, 0.3, 1.0]
    shape, mask, _ = masks_of(shares, channels=60, out_features=20, in_features=20 * 40)
    for name, part in shape.split(mask - mask[:1]).items():
        if name.endswith("weight"):
            kernels = part.flatten(3) if part.dim() == 5 else part.unflatten(2, (60, -1))
            assert torch.equal(kernels, kernels[..., :1].expand_as(kernels))
            if kernels.shape[2] == 60:
                kept = kernels[..., 0].sum(dim=(1, 2)) / kernels[-1, ..., 0].sum()
                assert kept.tolist() == pytest.approx(shares, abs=0.08)
    assert all((mask[low] <= mask[low + 1]).all() for low in range(3))


def test_initial_weights_are_normal_with_variance_over_masked_fan_in() -> None:
    shape, _, parameters = masks_of([0.0, 1.0], channels=100)
    parts = shape.split(parameters)
    fan_ins = {"convolution.0.weight": 2 * 9, "convolution.1.weight": 100 * 9, "write.weight": 100 * 20}
    for name, fan_in in fan_ins.items():
        for member, kept in ((0, fan_in / 2), (1, fan_in)):
            weights = parts[name][member]
            assert float(weights[weights != 0].var()) == pytest.approx(0.49 / kept, rel=0.1), name


@pytest.mark.parametrize("pool", ["mean", "none"])
@pytest.mark.parametrize("powers", [(2, 1), (1, 2), (1, 0), (0, 1)])
def test_penalties_count_every_weight_once_with_its_channel_activity(
    pool: str, powers: tuple[float, float]
) -> None:
    p, q = powers
    shape = network(pool=pool, stride=2)
    parameters, inputs = drawn(shape)
    recording = shape.record(parameters, inputs)
    ones = torch.ones(2)
    run = Pass(shape, parameters, torch.ones_like(parameters), inputs, recording)
    coefficients = {
        "strength": ones,
        "weight_power": p * ones,
        "activity_power": q * ones,
        "first_layer": ones,
    }
    parts = shape.split(parameters)
    images = inputs.unflatten(2, (2, -1)).abs().pow(q).mean(dim=(1, 3))
    activities = [recording.values[site.name].abs().pow(q).mean(dim=2) for site in shape.sites]
    expected = torch.zeros(2)
    for name, activity in zip(
        ("convolution.0.weight", "convolution.1.weight", "write.weight"), [images, *activities], strict=True
    ):
        by_source = parts[name].unflatten(2, (activity.shape[1], -1)).flatten(3)
        expected = expected + (by_source.abs().pow(p) * activity[:, None, :, None]).sum(dim=(1, 2, 3))
    torch.testing.assert_close(PowerRegulariser.penalty(run, coefficients, "whole"), expected)


def test_the_jacobian_penalty_is_the_variance_that_noise_adds_to_a_linear_network() -> None:
    shape = network(activation="linear", pool="mean", depth=1)
    parameters, inputs = drawn(shape, batch=2)
    recording = shape.record(parameters, inputs)
    ones = torch.ones(2)
    run = Pass(shape, parameters, torch.ones_like(parameters), inputs, recording)
    law = {"strength": ones, "constant": 0 * ones, "linear": ones, "quadratic": 0 * ones}
    # Noise of variance |a| at 20 positions, each read with V / 20.
    activity = recording.values["channel.0"].abs().unflatten(2, (20, 2)).sum(dim=2).mean(dim=2)
    readout = shape.split(parameters)["write.weight"].square().sum(dim=1) / 400
    expected = (readout * activity).sum(dim=1)
    torch.testing.assert_close(JacobianRegulariser.penalty(run, law, ""), expected)


@pytest.mark.parametrize("regulariser", ["activity_weight", "jacobian"])
def test_noise_and_penalties_change_what_is_learned_and_keep_it_finite(regulariser: str) -> None:
    groups = {"task": "digits", "architecture": "convolution", "regulariser": regulariser}
    common: dict[str, Any] = {
        "architecture__channels": 3, "training__steps": 5, "training__batch_size": 8, "data__num_samples": 32,
        "task__modules": 1,
    }  # fmt: skip
    members = {
        (noise, strength): make_member(groups | {"noise": noise}, regulariser__strength=strength, **common)
        for noise in ("none", "poisson")
        for strength in (0.0, 0.02)
    }
    trained = {key: trained_parameters([member])[0] for key, member in members.items()}
    assert all(parameters.isfinite().all() for parameters in trained.values())
    for one, other in itertools.combinations(trained.values(), 2):
        assert not torch.equal(one, other)


class Coloured(DigitsTask):
    """Its images have a third axis."""

    @property
    def input_shape(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (8, 8, 1)


class Overlapping(DigitsTask):
    """Its modules share a pixel."""

    @property
    def partition(self) -> Partition:
        parts = super().partition
        return Partition(parts.modules, (*parts.inputs[:-1], SHARED), parts.outputs)


class Wide(DigitsTask):
    """It cuts its images into rows of 16 pixels."""

    @property
    def input_shape(self) -> tuple[int, int]:
        return (4, 16)


class Cropped(DigitsTask):
    """It says that its images are larger than they are."""

    @property
    def input_shape(self) -> tuple[int, int]:
        return (8, 9)


def test_images_need_not_be_square() -> None:
    member = make(task___target_=f"{__name__}.Wide")
    shape = network_of(member)
    assert isinstance(shape, Convolution)
    assert (shape.image, shape.input_channels) == ((4, 16), 2)
    check_taps(member)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("Coloured", r"architecture=convolution reads images of rows and columns, .* as \(8, 8, 1\)"),
        ("Overlapping", r"images of 8 x 8 inputs that follow one another .* its 128 inputs in another way"),
        ("Cropped", r"images of 8 x 9 inputs"),
    ],
)
def test_inputs_that_are_no_images_of_one_module_each_are_refused(task: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(task___target_=f"{__name__}.{task}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"architecture__kernel": 4}, r"architecture\.kernel.* a kernel of 4 rows has none at its centre"),
        (
            {"architecture__channels": 1, "architecture__cross_connections": 0.0},
            r"architecture\.channels=1 cannot give each of task\.modules=2 a channel",
        ),
        ({"task__code": "mixed"}, r"task\.code=mixed needs a network whose first weights"),
        ({"architecture__depth": 0}, r"architecture\.depth"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**overrides)


def test_a_command_trains_measures_and_tabulates_them(command: Command, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    code, out, errors = command("train", *SMALL.split(), f"hydra.run.dir={folder}")
    assert code == 0, out + errors
    results = modulab.load_results(folder)
    modular = results.set_index("config.architecture.cross_connections")["modularity/functional"]
    assert modular[1.0] < 0.9 < modular[0.0] == 1
    assert all("structural: the network is not a sequence of layers" in text for text in results["skipped"])
    weights = modulab.load_members(folder)[0].weights
    assert weights["convolution.1.weight"].shape == (2, 3, 3, 3, 3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_the_compiled_engine_agrees_with_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        make(
            seed=seed, noise="poisson", noise__scale=0.1 * (1 + seed), training__steps=20,
            architecture__cross_connections=(1.0, 0.0)[seed], architecture__depth=1,
        )
        for seed in range(2)
    ]  # fmt: skip
    check_compiled(members, monkeypatch)


@pytest.mark.slow
def test_a_small_network_learns_digits() -> None:
    member = make(
        task__modules=1, architecture__channels=16, training__steps=300, training__batch_size=64,
        training__learning_rate=0.01, data__num_samples=4096,
    )  # fmt: skip
    shape, parameters = network_of(member), trained_parameters([member])
    samples = member.task.draw(member_keys([5]), torch.arange(2000, dtype=torch.int32)[None], "full", "test")
    named = shape.forward(parameters, samples.inputs).argmax(dim=2)
    assert (named != samples.targets[:, :, 0]).float().mean() < 0.15
