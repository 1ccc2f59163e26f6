"""Short cuts that large plans take give what the long way gives."""

from __future__ import annotations

import pickle

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from modulab.config.overrides import plain_leaf
from tests.members import make_member


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
@example(-0.0)
@example(1e-7)
def test_numbers_are_read_as_hydra_reads_them(number: float) -> None:
    override = f"noise.scale={number!r}"
    parsed = OverridesParser.create().parse_override(override).value()
    leaf = plain_leaf(override)
    assert leaf is not None
    assert (leaf[0], type(leaf[1]), repr(leaf[1])) == ("noise.scale", type(parsed), repr(parsed))


def test_a_kept_hash_of_settings_does_not_outlive_their_values() -> None:
    before, other = (
        make_member(noise__scale=0.0).noise,
        make_member({"noise": "poisson"}, noise__scale=0.1).noise,
    )
    assert hash(other) != hash(other.model_copy(update={"scale": 0.2}))
    assert hash(other.model_copy(update={"scale": 0.2}).model_copy(update={"scale": 0.1})) == hash(other)
    assert (
        other == make_member({"noise": "poisson"}, noise__scale=0.1).noise
    )  # of which nobody asked for a hash
    assert before != other
    # In a process with other hashes of texts, a hash that came along would be wrong.
    assert pickle.loads(pickle.dumps(other)) == other
    assert set(vars(pickle.loads(pickle.dumps(other)))) == set(type(other).model_fields)
