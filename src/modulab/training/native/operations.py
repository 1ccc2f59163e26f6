"""Operations on elements: what each is in C++.

An operation's arguments are cast to one type, which is that of the result unless `takes` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Operation:
    """A C++ expression of arguments {0}, {1} and so on."""

    expression: str
    is_cheap: bool = True
    takes: Literal["result", "promoted", "condition"] = "result"
    """Arguments are of the result's type, of that to which they are all promoted, or so after a first that is bool."""
    floats_only: bool = False
    latency: int = 4
    """Cycles until the result is there, roughly: additions and products of floats take four on most processors."""


_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

OPERATIONS: dict[str, Operation] = {
    "add": Operation("({0} + {1})"),
    "sub": Operation("({0} - {1})"),
    "rsub": Operation("({1} - {0})"),
    "mul": Operation("({0} * {1})"),
    "div": Operation("({0} / {1})", is_cheap=False, floats_only=True, latency=16),
    "reciprocal": Operation("(1 / {0})", is_cheap=False, floats_only=True, latency=16),
    "neg": Operation("(-{0})", latency=1),
    "abs": Operation("absolute({0})", latency=1),
    "sgn": Operation("sign({0})"),
    "sign": Operation("sign({0})"),
    "copysign": Operation("__builtin_copysignf({0}, {1})", floats_only=True, latency=1),
    "relu": Operation("({0} < 0 ? 0 : {0})", latency=1),
    "threshold_backward": Operation("({1} <= {2} ? 0 : {0})", latency=1),
    "sqrt": Operation("__builtin_sqrtf({0})", is_cheap=False, floats_only=True, latency=20),
    "ceil": Operation("__builtin_ceilf({0})", floats_only=True),
    "floor": Operation("__builtin_floorf({0})", floats_only=True),
    "exp": Operation("exponential({0})", is_cheap=False, floats_only=True, latency=48),
    "log": Operation("logarithm({0})", is_cheap=False, floats_only=True, latency=56),
    "log1p": Operation("logarithm_of_one_plus({0})", is_cheap=False, floats_only=True, latency=80),
    "tanh": Operation("hyperbolic_tangent({0})", is_cheap=False, floats_only=True, latency=100),
    "tanh_backward": Operation("({0} * (1 - {1} * {1}))", floats_only=True),
    "sigmoid": Operation("(1 / (1 + exponential(-{0})))", is_cheap=False, floats_only=True, latency=72),
    "sigmoid_backward": Operation("({0} * ((1 - {1}) * {1}))", floats_only=True),
    "cos": Operation("cosine({0})", is_cheap=False, floats_only=True, latency=48),
    "sin": Operation("sine({0})", is_cheap=False, floats_only=True, latency=48),
    "maximum": Operation("larger({0}, {1})"),
    "minimum": Operation("smaller({0}, {1})"),
    "remainder": Operation("remainder_of({0}, {1})", is_cheap=False, latency=40),
    "where": Operation("({0} ? {1} : {2})", takes="condition", latency=1),
    "bitwise_and": Operation("({0} & {1})", latency=1),
    "bitwise_or": Operation("({0} | {1})", latency=1),
    "bitwise_xor": Operation("({0} ^ {1})", latency=1),
    "__rshift__": Operation("({0} >> {1})", latency=1),
    "__lshift__": Operation("({0} << {1})", latency=1),
    "logical_not": Operation("(!{0})", takes="promoted", latency=1),
    "logical_and": Operation("({0} && {1})", takes="promoted", latency=1),
    "logical_or": Operation("({0} || {1})", takes="promoted", latency=1),
    "bitwise_not": Operation("(~{0})", latency=1),
    "copy": Operation("{0}", latency=1),
} | {name: Operation(f"({{0}} {sign} {{1}})", takes="promoted") for name, sign in _COMPARISONS.items()}

LOGARITHM_OF_NORMAL = Operation("logarithm_of_normal({0})", is_cheap=False, floats_only=True, latency=48)
"""What `log` is where its argument is known to be positive, finite and not subnormal."""


@dataclass(frozen=True)
class Reduction:
    """How elements are combined: in C++, and what to begin with."""

    expression: str
    start: str
    clause: str
    """What OpenMP calls it."""


REDUCTIONS: dict[str, Reduction] = {
    "sum": Reduction("{0} + {1}", "0", "+"),
    "amax": Reduction("larger({0}, {1})", "-__builtin_inff()", "amax"),
}
