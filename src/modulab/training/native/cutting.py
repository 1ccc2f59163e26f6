"""Loops cut into several where an iteration is a long chain of operations, each of which waits for the one before.

A processor works on several iterations at once, but it looks only some hundred instructions ahead. Where chains are
longer, its arithmetic units are idle most of the time: a pair of normal numbers takes 150 cycles from the counter to
the numbers, though 16 pairs need only 45 cycles of arithmetic. If one loop does the first part of all iterations and
another the next, more iterations overlap. What passes between the loops stays in the first cache, and reading and
writing it does not use the units that are in demand.
"""

from __future__ import annotations

from modulab.training.native.fusing import Loop, written_before
from modulab.training.native.statements import Statement

LONGEST_CHAIN = 48
"""Cycles that the operations of an iteration may take one after another in a part of a loop that is cut."""
_WORTH_CUTTING = 2 * LONGEST_CHAIN
"""Cycles from which on a loop is cut."""
_LEAST_ITERATIONS = 32
"""Of a loop that is cut: two vectors."""


def cut(loop: Loop) -> list[Loop]:
    """Return loops that run one after another in place of a loop: itself, or several where its chains are long."""
    if loop.size < _LEAST_ITERATIONS or longest_chain(loop) < _WORTH_CUTTING:
        return [loop]
    parts, _ = _divided(loop, LONGEST_CHAIN)
    return parts


def longest_chain(loop: Loop) -> int:
    """Return the cycles from the inputs of an iteration to its last result."""
    _, longest = _divided(loop, None)
    return longest


def _divided(loop: Loop, most: int | None) -> tuple[list[Loop], int]:
    """Return a loop in parts, in which no chain but one of a single statement takes more cycles, and the longest chain.

    Without `most` there is one part.
    """
    inside = set(loop.statements)
    parts: list[Loop] = [Loop(loop.size)]
    place: dict[Statement, int] = {}
    ready: dict[Statement, int] = {}
    for statement in loop.statements:
        writers = [writer for _, writer in written_before(statement, inside)]
        number = max((place[writer] for writer in writers), default=0)
        start = max((ready[writer] for writer in writers if place[writer] == number), default=0)
        if most is not None and start and start + statement.latency > most:
            number, start = number + 1, 0
        if number == len(parts):
            parts.append(Loop(loop.size))
        parts[number].statements.append(statement)
        place[statement], ready[statement] = number, start + statement.latency
    return parts, max(ready.values())
