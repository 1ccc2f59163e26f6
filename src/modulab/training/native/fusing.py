"""Which statements share loops, and which values are computed again rather than kept.

Statements are put into groups that share all loops but the innermost: a group goes through the units of a layer, say,
and does for each unit all that can be done before the next. Within a group, statements with equal innermost loops
share these as well, where each reads only what the same iteration has computed. Memory of a group is then a row of
values for one unit, which stays in the first cache, or no memory at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from modulab.training.native.statements import Access, Body, Buffer, Product, Statement

_MOST_AGAIN = 16
"""Operations up to which a value is computed again rather than kept from one group for another."""


@dataclass(eq=False)
class Group:
    """Statements that share their outer loops, or one product."""

    outer: tuple[int, ...]
    statements: list[Statement] = field(default_factory=list)
    product: Product | None = None

    @property
    def members(self) -> list[Statement | Product]:
        """Return all that is computed in the group."""
        return [*self.statements] if self.product is None else [self.product]


@dataclass(eq=False)
class Loop:
    """Statements that share the innermost loop, too."""

    size: int
    statements: list[Statement] = field(default_factory=list)


def fused(body: Body) -> list[Group]:
    """Return the groups of a body in an order in which they can be computed."""
    groups = _grouped(body.statements)
    _sink(groups, body)
    _compute_again(groups, body)
    _drop_unused(groups, body)
    return [group for group in groups if group.members]


def _grouped(statements: Iterable[Statement | Product]) -> list[Group]:
    """Put each statement into the first group that it fits into."""
    groups: list[Group] = []
    place: dict[Statement | Product, int] = {}
    for statement in statements:
        earlier = [
            writer for access in _ordered_after(statement) for writer in _writers(access) if writer in place
        ]
        first = max((place[writer] for writer in earlier), default=0)
        if isinstance(statement, Product):
            groups.append(Group((), product=statement))
            place[statement] = len(groups) - 1
            continue
        for number in range(first, len(groups)):
            group = groups[number]
            if group.product is None and group.outer == statement.outer and can_join(statement, group):
                break
        else:
            number = len(groups)
            groups.append(Group(statement.outer))
        groups[number].statements.append(statement)
        place[statement] = number
    return groups


def _ordered_after(statement: Statement | Product) -> list[Access]:
    """Return what must have been written before: what is read, and what else is written to the same buffer."""
    return [*statement.reads, statement.output]


def can_join(statement: Statement, group: Group) -> bool:
    """Return whether a statement reads nothing but what an iteration of a group's outer loops has at hand."""
    inside = set(group.statements)
    return all(
        follows(access, writer, len(statement.outer)) or shares_loop(statement, access, writer)
        for access in _ordered_after(statement)
        for writer in _writers(access)
        if writer in inside and writer is not statement
    )


def _writers(access: Access) -> Sequence[Statement | Product]:
    assert access.buffer is not None
    return access.buffer.writers


def written_before(statement: Statement, inside: set[Statement]) -> Iterator[tuple[Access, Statement]]:
    """Yield what must have been written before a statement, with each of some statements that writes it."""
    for access in _ordered_after(statement):
        for writer in _writers(access):
            if writer is statement:
                # Of several that write to one buffer, those that come later keep their place.
                break
            if writer in inside:
                yield access, writer


def shares_loop(statement: Statement, access: Access, writer: Statement | Product) -> bool:
    """Return whether an iteration reads just the element that the same iteration of the writer's loops writes."""
    return (
        isinstance(writer, Statement)
        and not writer.reduced
        and len(_writers(access)) == 1
        and writer.sizes == statement.sizes
        and not access.is_pointer
        and (access.strides, access.offset) == (writer.output.strides, writer.output.offset)
    )


def follows(access: Access, writer: Statement | Product, outer: int) -> bool:
    """Return whether an iteration of the outer loops reads only elements that the same iteration has written."""
    if not isinstance(writer, Statement) or access.is_pointer:
        return False
    written = writer.output
    if any(place < outer for place in writer.reduced):
        return False
    steps = written.strides[:outer]
    if access.strides[:outer] != steps or 0 in steps:
        return False
    if not steps:
        return True
    inner = [abs(each) for each in (*access.strides[outer:], *written.strides[outer:])]
    if (access.strides, access.offset) == (written.strides, written.offset):
        return True
    # Rows apart: what one iteration writes lies before what the next one writes.
    least = min(steps)
    return (
        access.offset // least == written.offset // least == 0
        and all(each < least for each in inner)
        and _within(written, writer.inner, outer) < least
    )


def _within(access: Access, size: int, outer: int) -> int:
    return access.offset + sum(stride * (size - 1) for stride in access.strides[outer:])


def _readers(groups: Sequence[Group]) -> dict[Buffer, list[tuple[int, Statement | Product, Access]]]:
    readers: defaultdict[Buffer, list[tuple[int, Statement | Product, Access]]] = defaultdict(list)
    for number, group in enumerate(groups):
        for member in group.members:
            for access in member.reads:
                assert access.buffer is not None
                readers[access.buffer].append((number, member, access))
    return readers


def is_full(statement: Statement, access: Access) -> bool:
    """Return whether an input has an element of its own for each iteration, so that reading it takes memory traffic."""
    return access.buffer is not None and len(statement.sizes) > 1 and all(access.strides)


def _full_inputs(statement: Statement) -> list[Access]:
    return [access for access in statement.reads if is_full(statement, access)]


def _sink(groups: list[Group], body: Body) -> None:
    """Move what is read only by one later group to that group, where that keeps no more values between groups."""
    outputs = {access.buffer for access in body.outputs}
    for number in range(len(groups) - 1, -1, -1):
        for statement in reversed(list(groups[number].statements)):
            buffer = statement.output.buffer
            assert buffer is not None
            readers = _readers(groups).get(buffer, [])
            if not readers or statement.reduced or len(buffer.writers) > 1 or buffer in outputs:
                continue
            target = min(place for place, _, _ in readers)
            group = groups[target]
            if target == number or group.product is not None or group.outer != statement.outer:
                continue
            read = {access.buffer for other in group.statements for access in other.reads}
            new = [access for access in _full_inputs(statement) if access.buffer not in read]
            joins = all(
                shares_loop(reader, access, statement) or follows(access, statement, len(group.outer))
                for place, reader, access in readers
                if place == target and isinstance(reader, Statement)
            )
            if len(new) <= 1 and joins and can_join(statement, group):
                groups[number].statements.remove(statement)
                group.statements.insert(0, statement)


def _compute_again(groups: list[Group], body: Body) -> None:
    """Copy cheap statements into later groups that read them, where fewer values then pass between groups."""
    place = {member: number for number, group in enumerate(groups) for member in group.members}
    ranks = {statement: rank for rank, statement in enumerate(body.statements)}
    for number, group in enumerate(groups):
        wanted: dict[Buffer, Statement] = {}
        for statement in group.statements:
            for access in statement.reads:
                writer = _cheap_writer(statement, access)
                if writer is not None and place[writer] < number:
                    assert access.buffer is not None
                    wanted[access.buffer] = writer
        chains = {buffer: _chain(writer, place, number) for buffer, writer in wanted.items()}
        chains = {buffer: chain for buffer, chain in chains.items() if len(chain) <= _MOST_AGAIN}
        kept = {
            access.buffer
            for statement in group.statements
            for access in _full_inputs(statement)
            if access.buffer not in chains and not any(place[writer] == number for writer in _writers(access))
        }
        needed = {
            access.buffer
            for chain in chains.values()
            for statement in chain
            for access in _full_inputs(statement)
            if not any(writer in chain for writer in _writers(access))
        }
        if not chains or len(needed - kept) > len(chains):
            continue
        copied = dict.fromkeys(each for chain in chains.values() for each in chain)
        originals = sorted(copied, key=ranks.__getitem__)
        copies = _copy_into(group, originals, number)
        place |= dict.fromkeys(copies, number)
        ranks |= {copy: ranks[original] for copy, original in zip(copies, originals, strict=True)}


def _cheap_writer(statement: Statement, access: Access) -> Statement | None:
    """Return what recomputes an input for each iteration at little cost, if anything does."""
    if access.buffer is None or access.buffer.is_argument or access.buffer.values is not None:
        return None
    writer = access.buffer.writers[0]
    if (
        isinstance(writer, Statement)
        and writer.is_cheap
        and len(writer.sizes) > 1
        and shares_loop(statement, access, writer)
    ):
        return writer
    return None


def _chain(writer: Statement, place: Mapping[Statement | Product, int], number: int) -> list[Statement]:
    """Return the cheap statements from which a value follows, itself among them."""
    chain = [writer]
    for statement in chain:
        if len(chain) > _MOST_AGAIN:
            break
        for access in statement.reads:
            before = _cheap_writer(statement, access)
            if before is not None and place[before] < number and before not in chain:
                chain.append(before)
    return chain


def _copy_into(group: Group, statements: Sequence[Statement], number: int) -> list[Statement]:
    copies: dict[Buffer, Buffer] = {}
    added: list[Statement] = []
    for statement in statements:
        old = statement.output.buffer
        assert old is not None
        new = Buffer(f"{old.name}g{number}", old.dtype, old.size)
        copies[old] = new
        copy = replace(statement, output=replace(statement.output, buffer=new))
        _redirect(copy, copies)
        new.writers.append(copy)
        added.append(copy)
    for statement in group.statements:
        _redirect(statement, copies)
    group.statements[:0] = added
    return added


def _redirect(statement: Statement, copies: dict[Buffer, Buffer]) -> None:
    """Let a statement read the copies where it reads just what the same iteration computes.

    Elsewhere it reads, as another expert's logits, what a copy has not computed yet.
    """
    statement.inputs = tuple(
        replace(access, buffer=copies[access.buffer])
        if access.buffer in copies and shares_loop(statement, access, access.buffer.writers[0])
        else access
        for access in statement.inputs
    )


def _drop_unused(groups: list[Group], body: Body) -> None:
    used = {access.buffer for access in body.outputs}
    for group in reversed(groups):
        for statement in reversed(_sorted(group)):
            if statement.output.buffer in used:
                used.update(access.buffer for access in statement.reads)
            else:
                group.statements.remove(statement)
        if group.product is not None:
            if group.product.output.buffer in used:
                used.update(access.buffer for access in group.product.reads)
            else:
                group.product = None


def _sorted(group: Group) -> list[Statement]:
    """Return a group's statements, each after those that it needs."""
    inside = set(group.statements)
    done: dict[Statement, None] = {}

    def visit(statement: Statement) -> None:
        if statement in done:
            return
        for _, writer in written_before(statement, inside):
            visit(writer)
        done[statement] = None

    for statement in group.statements:
        visit(statement)
    return list(done)


def loops(group: Group) -> list[Loop]:
    """Return a group's innermost loops, in an order in which each iteration of the outer ones can run them."""
    found: list[Loop] = []
    at: dict[Statement, int] = {}
    inside = set(group.statements)
    for statement in _sorted(group):
        first = 0
        for access, writer in written_before(statement, inside):
            together = shares_loop(statement, access, writer)
            first = max(first, at[writer] + (0 if together else 1))
        for number in range(first, len(found)):
            if found[number].size == statement.inner:
                break
        else:
            number = len(found)
            found.append(Loop(statement.inner))
        found[number].statements.append(statement)
        at[statement] = number
    return found
