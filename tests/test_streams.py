import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from modulab.streams import (
    Stream,
    bernoullis,
    drawn_normals,
    fold_in,
    integers,
    member_keys,
    normals,
    random_bits,
    uniforms,
)

LEAST_P = 1e-4
"""Draws are fixed, so a test that passes keeps passing; a broken stream would give far less than this."""

SEEDS = [0, 1, 2**31 - 1, 2**32, 2**32 + 1, 2**63 - 1]
COUNTERS = torch.tensor([[0, 1, 2, -1, 2**31 - 1]], dtype=torch.int32)


def counters(number, first=0):
    return torch.arange(first, first + number, dtype=torch.int32).unsqueeze(0)


def step_keys(num_steps, seed=0):
    """Return one key a step, as noise uses them."""
    keys = fold_in(member_keys([seed]), Stream.NOISE)
    return torch.cat([fold_in(keys, step) for step in range(num_steps)])


def layer_of_step_keys(num_layers, seed=0):
    keys = step_keys(1, seed)
    return torch.cat([fold_in(keys, layer) for layer in range(num_layers)])


def uniformity(bins):
    """Return the p-value of equal frequencies."""
    return stats.chisquare(np.asarray(bins)).pvalue


# ---- Recorded values: results depend on every one of them, so none may change. ----


def test_member_keys_are_the_recorded_ones():
    assert member_keys(SEEDS).tolist() == [
        [-1340747948, -1387996158],
        [1674451669, 1093717566],
        [-1987349677, 1526987637],
        [149182020, -1004289110],
        [308841193, 793219810],
        [-810988877, 1923357920],
    ]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0, [[-249469987, 683943455], [1016840161, -1343254620]]),
        (int(Stream.NOISE), [[-201141318, 598059427], [1032867137, 572828333]]),
        (2**31 + 5, [[1861628258, -708742540], [-1132958993, -1767331459]]),
        (-7, [[-238288288, 134712496], [-1342534213, -1448343067]]),
        (torch.tensor(-7, dtype=torch.int32), [[-238288288, 134712496], [-1342534213, -1448343067]]),
    ],
)
def test_folded_keys_are_the_recorded_ones(word, expected):
    assert fold_in(member_keys([0, 1]), word).tolist() == expected


def test_random_bits_are_the_recorded_ones():
    assert random_bits(member_keys(SEEDS[:3]), COUNTERS).tolist() == [
        [-249469987, -2005224210, -1985062102, -767288251, -2082283410],
        [1016840161, 485157812, -1214862285, -1378045518, 2050246013],
        [-1953196989, -1319655835, -2128789719, -1722247253, 1864950899],
    ]


def test_uniforms_are_the_recorded_ones():
    draws = uniforms(member_keys(SEEDS[:3]), COUNTERS).double() * 2**24
    assert draws.tolist() == [
        [15802723, 8944309, 9023067, 13779997, 8643297],
        [3972031, 1895147, 12031661, 11394225, 8008773],
        [9147541, 11622311, 8461631, 10049687, 7284965],
    ]


def test_integers_are_the_recorded_ones():
    limits = torch.tensor([2, 10, 2**31 - 1], dtype=torch.int32)
    assert integers(member_keys(SEEDS[:3]), COUNTERS, limits).tolist() == [
        [0, 1, 1, 0, 1],
        [0, 6, 5, 9, 6],
        [1170885153, 1487655730, 1083088788, 1286360021, 932475449],
    ]


def test_normals_are_the_recorded_ones():
    # To rounding: logarithms and cosines may differ in the last bit between processors.
    expected = [
        [
            [-0.27535835, -1.0251404, 0.79773116, 0.20941982, 0.45507768],
            [-0.05992402, -0.8273605, 0.9526844, -0.8238113, -0.81849998],
        ],
        [
            [0.87425399, 2.0610337, 0.34358287, 1.4550489, 0.33703065],
            [-0.98609322, 1.0922464, -2.3935776, 0.953269, 2.3731701],
        ],
    ]
    torch.testing.assert_close(
        normals(member_keys([0, 1]), 2, 5), torch.tensor(expected), atol=1e-6, rtol=1e-6
    )


def test_stream_numbers_are_the_recorded_ones():
    assert {stream.name: stream.value for stream in Stream} == {
        "INITIALISATION": 1,
        "DATA": 2,
        "MINIBATCH": 3,
        "NOISE": 4,
        "EVALUATION_DATA": 5,
        "EVALUATION_NOISE": 6,
        "WEIGHT_NOISE": 7,
        "INPUT_NOISE": 8,
        "ABLATION": 9,
        "MASK": 10,
        "TASK": 11,
        "ADAPTATION": 12,
        "FRAME_NULL": 13,
        "GRAPH_NULL": 14,
        "COMMUNITIES": 20,
        "CUT": 31,
        "TRANSPLANT": 32,
        "EXPERTS": 33,
        "SEQUENTIAL": 40,
        "INPUT_PARTITIONS": 50,
    }


# ---- Oracle: the same hash in Python's unbounded integers. ----


def mix(word):
    word ^= word >> 16
    word = word * 0x7FEB352D % 2**32
    word ^= word >> 15
    word = word * 0x846CA68B % 2**32
    return word ^ word >> 16


@given(
    seed=st.integers(0, 2**63 - 1),
    word=st.integers(-(2**31), 2**31 - 1),
    counter=st.integers(-(2**31), 2**31 - 1),
)
@settings(max_examples=100)
def test_bits_are_those_of_the_hash_written_in_whole_numbers(seed, word, counter):
    def fold(first, second, word):
        new_first = mix(mix((first + word * 0x9E3779B9) % 2**32) ^ second)
        return new_first, mix((mix(second ^ word * 0x85EBCA6B % 2**32) + new_first) % 2**32)

    low, high = mix((seed + 0x9E3779B9) % 2**32), mix(((seed >> 32) + 0x85EBCA6B) % 2**32)
    first, second = fold(*fold(low, high, 0), word)
    expected = mix(mix((counter + first) % 2**32) ^ second)
    keys = fold_in(member_keys([seed]), word)
    bits = random_bits(keys, torch.tensor([[counter]], dtype=torch.int32)).item()
    assert bits % 2**32 == expected


# ---- Each draw is a function of its own key and counter. ----


@given(order=st.permutations(range(9)), size=st.integers(1, 9))
@settings(max_examples=25)
def test_draws_do_not_depend_on_the_neighbours(order, size):
    chosen = list(order)[:size]
    keys = member_keys(range(9))
    places = counters(9)[:, chosen]
    limits = torch.arange(5, 14, dtype=torch.int32)
    assert torch.equal(random_bits(keys[chosen], places), random_bits(keys, counters(9))[chosen][:, chosen])
    assert torch.equal(uniforms(keys[chosen], places), uniforms(keys, counters(9))[chosen][:, chosen])
    assert torch.equal(
        integers(keys[chosen], places, limits[chosen]),
        integers(keys, counters(9), limits)[chosen][:, chosen],
    )
    assert torch.equal(fold_in(keys[chosen], 3), fold_in(keys, 3)[chosen])
    for columns in (1, 7, 64):
        assert torch.equal(normals(keys[chosen], 3, columns), normals(keys, 3, columns)[chosen])
        shares = torch.linspace(0, 1, 9)
        drawn = bernoullis(keys[chosen], shares[chosen], 3, columns)
        assert torch.equal(drawn, bernoullis(keys, shares, 3, columns)[chosen])


def test_counters_of_each_member_agree_with_shared_ones():
    keys = member_keys(range(5))
    assert torch.equal(uniforms(keys, counters(100)), uniforms(keys, counters(100).repeat(5, 1)))


def test_rows_of_normals_do_not_depend_on_how_many_follow():
    keys = member_keys(range(3))
    assert torch.equal(normals(keys, 4, 10), normals(keys, 9, 10)[:, :4])


def test_an_odd_number_of_columns_is_an_even_one_less_its_last():
    keys = member_keys(range(3))
    assert torch.equal(normals(keys, 4, 9), normals(keys, 4, 10)[:, :, :9])


# ---- Laws. ----


@pytest.mark.parametrize(
    ("members", "rows", "columns"),
    [(3, 4, 7), (1, 1, 1), (5, 2, 1), (40, 48, 128), (2, 300, 700), (2, 1, 200_001)],
)
def test_normals_drawn_in_pieces_are_the_same_bits(members, rows, columns):
    keys = member_keys(range(members))
    assert torch.equal(drawn_normals(keys, rows, columns), normals(keys, rows, columns))


def test_bernoullis_are_true_as_often_as_their_shares_say_and_always_or_never_at_the_ends():
    shares = torch.tensor([0.0, 2.0**-24, 0.1, 0.5, 0.96, 1.0])
    draws = bernoullis(member_keys(range(6)), shares, 500, 1001)
    found = draws.double().mean(dim=(1, 2))
    errors = (shares * (1 - shares) / (500 * 1001)).sqrt()
    assert ((found - shares).abs() <= 4 * errors).all()
    assert not draws[0].any()
    assert draws[-1].all()


def test_left_and_right_half_of_bernoullis_are_independent():
    left, right = bernoullis(member_keys([3]), torch.tensor([0.3]), 500, 1000).split(500, dim=2)
    together = (left & right).double().mean().item()
    assert abs(together - 0.09) < 4 * math.sqrt(0.09 * 0.91 / left.numel())


def test_a_larger_share_keeps_all_that_a_smaller_one_keeps():
    few, many = (bernoullis(member_keys([5]), torch.tensor([share]), 20, 30) for share in (0.3, 0.4))
    assert (many | ~few).all()
    assert (many & ~few).any()


def test_uniforms_are_uniform_in_the_open_interval():
    draws = uniforms(member_keys(range(4)), counters(250_000)).flatten().numpy()
    assert draws.min() > 0
    assert draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > LEAST_P


def test_normals_are_standard_normal():
    draws = normals(member_keys(range(4)), 500, 500).double().flatten()
    assert stats.kstest(draws.numpy(), "norm").pvalue > LEAST_P
    # Variances of the sample moments of N(0, 1): 1, 2, 15, 96, 10170 over n.
    number = len(draws)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((draws**power).mean().item() - mean) < 4 * math.sqrt(variance / number)
    assert draws.abs().max() < 5.77
    assert abs((draws.abs() > 4).sum().item() - number * 6.334e-5) < 4 * math.sqrt(number * 6.334e-5)


@pytest.mark.parametrize("limit", [2, 3, 10, 100, 4096])
def test_integers_are_uniform(limit):
    draws = integers(member_keys(range(2)), counters(200_000), torch.tensor([limit, limit]).int())
    assert uniformity(torch.bincount(draws.flatten(), minlength=limit)) > LEAST_P


def test_integers_keep_each_members_own_limit():
    limits = torch.tensor([1, 2, 7, 1000], dtype=torch.int32)
    draws = integers(member_keys([5] * 4), counters(20_000), limits)
    assert (draws.amin(dim=1) == 0).all()
    assert torch.equal(draws.amax(dim=1).int(), limits - 1)


KEY_FAMILIES = {
    "seeds": lambda: member_keys(range(512)),
    "steps": lambda: step_keys(512),
    "layers": lambda: layer_of_step_keys(512),
    "high seeds": lambda: member_keys([seed << 32 for seed in range(512)]),
}


@pytest.mark.parametrize("family", list(KEY_FAMILIES))
def test_consecutive_keys_give_independent_draws(family):
    keys = KEY_FAMILIES[family]()
    draws = normals(keys, 1, 512)[:, 0].double()
    # Across keys and, within each, across units: correlations of neighbours and of all pairs.
    for matrix in (draws, draws.T):
        for lag in (1, 2, 7, 64):
            correlation = (matrix[:-lag] * matrix[lag:]).mean().item()
            assert abs(correlation) < 4 / math.sqrt(matrix[lag:].numel())
        correlations = torch.corrcoef(matrix)[*torch.triu_indices(512, 512, 1)] * math.sqrt(512)
        assert correlations.abs().max() < 6
        assert abs(correlations.std().item() - 1) < 0.02
    # Squares as well, for noise whose size, not sign, is shared.
    squares = draws.square() - 1
    for matrix in (squares, squares.T):
        assert abs((matrix[:-1] * matrix[1:]).mean().item()) < 4 * 2 / math.sqrt(matrix[1:].numel())


@pytest.mark.parametrize("family", list(KEY_FAMILIES))
def test_first_draws_of_consecutive_keys_are_uniform(family):
    keys = KEY_FAMILIES[family]()
    for counter in (0, 1, 1000):
        draws = uniforms(keys, counters(1, counter)).flatten()
        assert stats.kstest(draws.numpy(), "uniform").pvalue > LEAST_P


@pytest.mark.parametrize("shift", [0, 12, 24])
@pytest.mark.parametrize("family", ["counters", "seeds", "steps"])
def test_successive_bits_fill_the_square_evenly(family, shift):
    if family == "counters":
        words = random_bits(member_keys([3]), counters(2**20))
    else:
        words = random_bits(KEY_FAMILIES[family](), counters(2048)).T.flatten().unsqueeze(0)
    bytes_ = (words >> shift).long() & 255
    pairs = bytes_[:, :-1] * 256 + bytes_[:, 1:]
    assert uniformity(torch.bincount(pairs.flatten(), minlength=2**16)) > LEAST_P


def test_radius_and_angle_of_normals_are_independent():
    draws = normals(member_keys(range(4)), 256, 512).double()
    first, second = draws[..., :256].flatten(), draws[..., 256:].flatten()
    for law in (lambda x: x, lambda x: x.square() - 1, lambda x: x.abs() - math.sqrt(2 / math.pi)):
        product = law(first) * law(second)
        assert abs((product.mean() / product.std()).item()) < 4 / math.sqrt(len(product))
    angle = torch.atan2(second, first).numpy()
    assert stats.kstest(angle, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > LEAST_P


def test_one_changed_bit_of_seed_word_or_counter_changes_each_bit_half_the_time():
    def shares(first, second):
        changed = (first ^ second).flatten()
        return torch.stack([(changed >> place & 1).double().mean() for place in range(32)])

    number = 4096
    keys, places = member_keys(range(number)), counters(1)
    bits = random_bits(keys, places)
    bound = 5 * 0.5 / math.sqrt(number)
    for place in range(0, 64, 7):
        flipped = member_keys([seed ^ (1 << place) for seed in range(number)][:number])
        if place < 63:
            assert (shares(bits, random_bits(flipped, places)) - 0.5).abs().max() < bound
    for place in range(31):
        flipped = fold_in(keys, 5 ^ (1 << place))
        assert (shares(fold_in(keys, 5), flipped) - 0.5).abs().max() < bound
        assert (shares(bits, random_bits(keys, places ^ (1 << place))) - 0.5).abs().max() < bound


def test_streams_of_one_seed_are_unrelated():
    draws = torch.stack(
        [uniforms(fold_in(member_keys([7]), stream), counters(20_000))[0] for stream in Stream]
    )
    correlations = torch.corrcoef(draws) - torch.eye(len(draws))
    assert correlations.abs().max() < 5 / math.sqrt(20_000)


def test_keys_are_distinct_over_seeds_and_folds():
    keys = member_keys([*range(2**14), *(seed << 32 for seed in range(1, 2**14))])
    folded = torch.cat([keys, *(fold_in(keys, stream) for stream in Stream)])
    words = folded[:, 0].long() * 2**32 + (folded[:, 1].long() & 0xFFFFFFFF)
    assert len(words.unique()) == len(folded)


@given(seed=st.integers(0, 2**32 - 1), high=st.integers(1, 2**31 - 1))
@settings(max_examples=50)
def test_seeds_that_agree_in_32_bits_differ(seed, high):
    keys = member_keys([seed, seed + (high << 32)])
    draws = random_bits(keys, counters(64))
    assert (draws[0] != draws[1]).sum() > 60


def test_a_word_for_each_member_is_folded_as_that_word_for_all():
    keys = member_keys([3, 5, 5])
    words = torch.tensor([0, 7, -(2**31)], dtype=torch.int32)
    found = fold_in(keys, words)
    for member, word in enumerate(words.tolist()):
        assert torch.equal(found[member], fold_in(keys, word)[member])


def test_order_of_folds_matters():
    keys = member_keys(range(100))
    assert (fold_in(fold_in(keys, 1), 2) != fold_in(fold_in(keys, 2), 1)).any(dim=1).all()


@given(words=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2))
def test_keys_in_memory_are_folded_as_those_of_a_transform(words):
    # torch.vmap and tracers take the way by torch, keys in memory that by NumPy.
    keys = member_keys(SEEDS)
    own = torch.tensor(words, dtype=torch.int32)
    by_torch = torch.vmap(lambda word: fold_in(keys, word))(own)
    for word, expected in zip(words, by_torch, strict=True):
        assert torch.equal(fold_in(keys, word), expected)
        assert torch.equal(fold_in(keys, torch.tensor(word, dtype=torch.int32)), expected)
