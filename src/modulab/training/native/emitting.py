"""C++ for the groups of a body, and for the loops over members and steps, or over rows, around it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modulab.training.native.cutting import cut
from modulab.training.native.fusing import Group, Loop, fused, loops, shares_loop
from modulab.training.native.operations import REDUCTIONS
from modulab.training.native.statements import Access, Body, Buffer, Product, Statement, Unsupported

_ALIGNMENT = 16
"""Of buffers, in elements of four bytes: a line of the cache."""
_LANES = 16
"""Elements that sums take at once, as in the prelude."""
PRELUDE = Path(__file__).parent / "prelude.hpp"


def step_source(body: Body, num_parameters: int, num_coefficients: int, batch_size: int) -> str:
    """Return the C++ source of a library with one function, `run`, that takes members through a chunk of steps."""
    writer = _Writer(body)
    return _common(writer) + _STEPS.format(
        workspace=writer.workspace,
        parameters=num_parameters,
        coefficients=num_coefficients,
        batch=batch_size,
        losses=writer.places[_buffer(body.outputs[0])],
        after=", ".join(f"workspace + {writer.places[_buffer(output)]}" for output in body.outputs[1:]),
    )


def function_source(body: Body) -> str:
    """Return the C++ source of a library with one function, `run`, that computes rows of a function's one output.

    Raises: Unsupported where the output is not of single precision.
    """
    writer = _Writer(body)
    [output], [shape] = map(_buffer, body.outputs), body.shapes
    if output.dtype != "float":
        raise Unsupported(f"results of type {output.dtype}")
    return _common(writer) + _ROWS.format(
        workspace=writer.workspace,
        arguments=len(body.arguments),
        size=output.size,
        bytes=", ".join(f"{each.size} * sizeof({_memory_type(each)})" for each in body.arguments),
        output=writer.places[output],
        dimensions=len(shape) - 1,
        shape=", ".join(map(str, (*shape[1:], 0))),
    )


def _common(writer: _Writer) -> str:
    return _BODY.format(
        prelude=PRELUDE.read_text("utf-8"), constants="\n".join(writer.constants()), body=writer.body()
    )


_BODY = """\
{prelude}
namespace {{

{constants}

__attribute__((noinline)) void body(int32_t *const workspace, const void *const *const arguments) {{
{body}}}

}}
"""

_STEPS = """
// Losses are (step, member), rows (step, 3, member) and coefficients (coefficient, member); all else has a row per
// member. Returns 0, or 1 where memory is lacking.
extern "C" int run(
    int64_t members, int64_t all_members, int64_t steps, int32_t first_step, float *parameters, float *first_moments,
    float *second_moments, const float *mask, const float *coefficients, const int32_t *minibatch_keys,
    const int32_t *noise_keys, const int64_t *offsets, const int32_t *counts, const float *table, const float *rows,
    float *losses) {{
  constexpr int64_t SIZE = {parameters}, COEFFICIENTS = {coefficients}, BATCH = {batch}, WORKSPACE = {workspace};
  int32_t *const workspace = (int32_t *)aligned_alloc(64, WORKSPACE * sizeof(int32_t));
  if (!workspace) return 1;
  float own_coefficients[COEFFICIENTS];
  for (int64_t member = 0; member < members; member++) {{
    for (int64_t i = 0; i < COEFFICIENTS; i++) own_coefficients[i] = coefficients[i * all_members + member];
    const int64_t place = member * SIZE;
    float *const state[3] = {{parameters + place, first_moments + place, second_moments + place}};
    for (int64_t number = 0; number < steps; number++) {{
      float row[3];
      for (int64_t i = 0; i < 3; i++) row[i] = rows[(number * 3 + i) * all_members + member];
      const int32_t at = first_step + (int32_t)number, position = (int32_t)(number * BATCH);
      const void *const arguments[] = {{
          state[0], state[1], state[2], mask + place, own_coefficients, minibatch_keys + member * 2,
          noise_keys + member * 2, offsets + member, counts + member, table, row, &at, &position}};
      body(workspace, arguments);
      memcpy(losses + number * all_members + member, workspace + {losses}, sizeof(float));
      const int32_t *const after[] = {{{after}}};
      for (int i = 0; i < 3; i++) memcpy(state[i], after[i], SIZE * sizeof(float));
    }}
  }}
  free(workspace);
  return 0;
}}
"""

_ROWS = """
extern "C" const int64_t dimensions = {dimensions}, shape[] = {{{shape}}};  // of a row, and an end

// Row r of the output is computed from row r / served[i] of argument i. Returns 0, or 1 where memory is lacking.
extern "C" int run(int64_t rows, const char *const *tensors, const int64_t *served, float *output) {{
  constexpr int64_t WORKSPACE = {workspace}, ARGUMENTS = {arguments}, SIZE = {size};
  constexpr int64_t BYTES[] = {{{bytes}}};
  int32_t *const workspace = (int32_t *)aligned_alloc(64, WORKSPACE * sizeof(int32_t));
  if (!workspace) return 1;
  for (int64_t row = 0; row < rows; row++) {{
    const void *arguments[ARGUMENTS];
    for (int64_t i = 0; i < ARGUMENTS; i++) arguments[i] = tensors[i] + row / served[i] * BYTES[i];
    body(workspace, arguments);
    memcpy(output + row * SIZE, workspace + {output}, SIZE * sizeof(float));
  }}
  free(workspace);
  return 0;
}}
"""


def _buffer(access: Access) -> Buffer:
    assert access.buffer is not None
    return access.buffer


def _memory_type(buffer: Buffer) -> str:
    """Return what a buffer's elements are in memory: truth values are as wide as numbers, for loops over both."""
    return "int32_t" if buffer.dtype == "bool" else buffer.dtype


def _words(buffer: Buffer, size: int) -> int:
    return size * (2 if buffer.dtype == "int64_t" else 1)


@dataclass
class _Block:
    """Lines of code in the making, within one loop."""

    adds_lanes: bool = False
    """Whether sums are kept for each of some lanes, and added up after the loop."""
    before: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    names: dict[tuple[Buffer, tuple[int, ...], int], str] = field(default_factory=dict)
    clauses: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class _Writer:
    def __init__(self, body: Body) -> None:
        self._body = body
        self._groups = fused(body)
        self._loops = [[part for loop in loops(group) for part in cut(loop)] for group in self._groups]
        self._arguments = {buffer: number for number, buffer in enumerate(body.arguments)}
        self._stored = self._in_memory()
        self._rows = self._row_buffers()
        self.places, self.workspace = self._laid_out()

    def _in_memory(self) -> set[Buffer]:
        """Return the buffers that need memory, as not all that reads them is in the loop that computes them."""
        stored = {_buffer(output) for output in self._body.outputs}
        for group, inner in zip(self._groups, self._loops, strict=True):
            if group.product is not None:
                stored |= {_buffer(access) for access in (*group.product.reads, group.product.output)}
            for loop in inner:
                inside = set(loop.statements)
                for statement in loop.statements:
                    stored |= {
                        _buffer(access)
                        for access in statement.reads
                        if not _in_register(statement, access, inside)
                    }
        return {each for each in stored if each not in self._arguments and each.values is None}

    def _accesses(self) -> dict[Buffer, list[tuple[int, Access]]]:
        """Return where each buffer in memory is read or written, with the number of the group."""
        found: defaultdict[Buffer, list[tuple[int, Access]]] = defaultdict(list)
        for number, group in enumerate(self._groups):
            for member in group.members:
                for access in (*member.reads, member.output):
                    if access.buffer in self._stored:
                        found[access.buffer].append((number, access))
        return found

    def _row_buffers(self) -> dict[Buffer, int]:
        """Return the buffers that are used within iterations of one group's outer loops alone, with a row's size."""
        outputs = {_buffer(output) for output in self._body.outputs}
        rows: dict[Buffer, int] = {}
        for buffer, uses in self._accesses().items():
            numbers = {number for number, _ in uses}
            group = self._groups[min(numbers)]
            outer = len(group.outer)
            steps = {access.strides[:outer] for _, access in uses}
            if (
                buffer in outputs
                or len(numbers) > 1
                or group.product is not None
                or len(steps) > 1
                or not outer
            ):
                continue
            if 0 in min(steps) or any(access.is_pointer for _, access in uses):
                continue
            rows[buffer] = max(
                access.offset + sum(access.strides[outer:]) * (statement.inner - 1) + 1
                for statement in group.statements
                for access in (*statement.reads, statement.output)
                if access.buffer is buffer
            )
        return rows

    def _laid_out(self) -> tuple[dict[Buffer, int], int]:
        """Return where each buffer begins in the workspace, and its size: they share what is not in use at once."""
        outputs = {_buffer(output) for output in self._body.outputs}
        lives: list[tuple[int, int, Buffer]] = []
        for buffer, uses in self._accesses().items():
            numbers = [number for number, _ in uses]
            last = len(self._groups) if buffer in outputs else max(numbers)
            lives.append((min(numbers), last, buffer))
        places: dict[Buffer, int] = {}
        taken: list[tuple[int, int, int, int]] = []
        for first, last, buffer in sorted(lives, key=lambda life: (life[0], -life[2].size)):
            words = _words(buffer, self._rows.get(buffer, buffer.size))
            size = -(-words // _ALIGNMENT) * _ALIGNMENT
            start = 0
            for begin, end, since, until in sorted(taken):
                if since <= last and until >= first and begin < start + size and end > start:
                    start = end
            taken.append((start, start + size, first, last))
            places[buffer] = start
        return places, max((end for _, end, _, _ in taken), default=_ALIGNMENT)

    def constants(self) -> Iterable[str]:
        """Return the arrays of numbers that the step was traced with."""
        found: dict[Buffer, None] = {}
        for group in self._groups:
            for member in group.members:
                found |= {
                    _buffer(access): None for access in member.reads if _buffer(access).values is not None
                }
        for buffer in found:
            assert buffer.values is not None
            kind = _memory_type(buffer)
            numbers = ", ".join(f"({kind}){value!r}" for value in buffer.values)
            yield f"alignas(64) const {kind} {buffer.name}[] = {{{numbers}}};"

    def body(self) -> str:
        """Return the body of the function that computes everything once."""
        return "".join(
            self._group(group, inner) for group, inner in zip(self._groups, self._loops, strict=True)
        )

    def _pointer(self, buffer: Buffer, read_only: bool) -> str | None:
        kind = _memory_type(buffer)
        if buffer.values is not None:
            return None
        if buffer in self._arguments:
            number = self._arguments[buffer]
            return f"  const {kind} *const {buffer.name} = (const {kind} *)arguments[{number}];"
        if read_only:
            return (
                f"  const {kind} *const {buffer.name} = (const {kind} *)(workspace + {self.places[buffer]});"
            )
        return f"  {kind} *const __restrict {buffer.name} = ({kind} *)(workspace + {self.places[buffer]});"

    def _group(self, group: Group, inner: Sequence[Loop]) -> str:
        used: dict[Buffer, bool] = {}
        for member in group.members:
            for access in member.reads:
                if access.buffer in self._stored or _is_given(_buffer(access)):
                    used.setdefault(_buffer(access), True)
            if member.output.buffer in self._stored:
                used[_buffer(member.output)] = False
        lines = ["  {"]
        lines += [line for buffer, read in used.items() if (line := self._pointer(buffer, read))]
        if group.product is not None:
            lines += self._product(group.product)
        else:
            lines += self._starts(group)
            for place, size in enumerate(group.outer):
                lines.append(f"  for (int o{place} = 0; o{place} < {size}; o{place}++) {{")
            for loop in inner:
                lines += self._loop(group, loop)
            lines += ["  }" for _ in group.outer]
        return "\n".join([*lines, "  }", ""])

    def _starts(self, group: Group) -> list[str]:
        """Return what sets sums to nothing that several iterations of the loops add to."""
        outer = len(group.outer)
        lines: list[str] = []
        for statement in group.statements:
            if statement.reduction is not None and self._adds_to_memory(statement, outer):
                buffer = _buffer(statement.output)
                start = REDUCTIONS[statement.reduction].start
                lines.append(f"  for (int i = 0; i < {buffer.size}; i++) {buffer.name}[i] = {start};")
        return lines

    def _adds_to_memory(self, statement: Statement, outer: int) -> bool:
        return any(place < outer for place in statement.reduced)

    def _loop(self, group: Group, loop: Loop) -> list[str]:
        block = _Block(adds_lanes=_adds_lanes(loop))
        inside = set(loop.statements)
        for statement in loop.statements:
            values = [self._input(statement, access, inside, block) for access in statement.inputs]
            expression = statement.expression.format(*values)
            if statement.reduction is not None:
                self._reduce(statement, expression, len(group.outer), block)
                continue
            buffer = _buffer(statement.output)
            name = f"v_{buffer.name}_{statement.output.offset}"
            block.inside.append(f"const {buffer.dtype} {name} = {expression};")
            block.names[buffer, statement.output.strides, statement.output.offset] = name
            if buffer in self._stored:
                block.inside.append(f"{self._element(statement.output)} = {name};")
        start = ["  {  constexpr int i = 0; (void)i;"] if loop.size == 1 else ["  {"]
        around = _in_lanes if block.adds_lanes else _one_by_one
        return [*start, *block.before, *around(loop.size, block), *block.after, "  }"]

    def _reduce(self, statement: Statement, value: str, outer: int, block: _Block) -> None:
        assert statement.reduction is not None
        reduction = REDUCTIONS[statement.reduction]
        buffer = _buffer(statement.output)
        target = self._element(statement.output)
        if not _is_within(statement):
            block.inside.append(f"{target} = {reduction.expression.format(target, value)};")
            return
        total = f"total_{buffer.name}"
        if block.adds_lanes:
            block.before.append(f"alignas(64) float {total}[LANES] = {{}};")
            block.inside.append(f"{total}[lane] += {value};")
            total = f"sum_of((Vector *){total})"
        else:
            block.before.append(f"{buffer.dtype} {total} = {reduction.start};")
            block.inside.append(f"{total} = {reduction.expression.format(total, value)};")
            block.clauses[reduction.clause].append(total)
        if self._adds_to_memory(statement, outer):
            total = reduction.expression.format(target, total)
        block.after.append(f"{target} = {total};")

    def _input(self, statement: Statement, access: Access, inside: set[Statement], block: _Block) -> str:
        if access.literal is not None:
            return access.literal
        if access.buffer is None:
            return f"(({access.dtype})({self._index(access)}))"
        key = (access.buffer, access.strides, access.offset)
        if access.is_pointer:
            return f"({access.buffer.name} + {self._index(access)})"
        if key in block.names and (
            _in_register(statement, access, inside) or access.buffer not in self._writes(inside)
        ):
            return block.names[key]
        element = self._element(access)
        if access.buffer.dtype == "bool":
            element = f"({element} != 0)"
        name = f"r_{len(block.names)}"
        varies = bool(access.strides and access.strides[-1])
        (block.inside if varies else block.before).append(f"const {access.dtype} {name} = {element};")
        block.names[key] = name
        return name

    def _writes(self, statements: Iterable[Statement]) -> set[Buffer]:
        return {_buffer(statement.output) for statement in statements}

    def _element(self, access: Access) -> str:
        name = _buffer(access).name
        *outer, inner = access.strides or (0,)
        if not inner or not any(outer):
            return f"{name}[{self._index(access)}]"
        # Sums of integers may wrap around. Where places are sums over several loops, the compiler cannot tell that
        # elements lie side by side, and would gather and scatter them. With a pointer for each row it can.
        row = self._index(replace(access, strides=(*outer, 0)))
        column = self._index(replace(access, strides=(*(0 for _ in outer), inner), offset=0))
        return f"({name} + ({row}))[{column}]"

    def _index(self, access: Access) -> str:
        variables = [f"o{place}" for place in range(len(access.strides) - 1)] + ["i"]
        first = len(access.strides) - 1 if access.buffer in self._rows else 0
        terms = [
            f"{variable} * {stride}" if stride != 1 else variable
            for variable, stride in list(zip(variables, access.strides, strict=False))[first:]
            if stride
        ]
        return " + ".join([*terms, str(access.offset)] if access.offset or not terms else terms)

    def _product(self, product: Product) -> list[str]:
        count, rows, columns, terms = product.sizes
        left, right, output = product.left, product.right, product.output
        lines = [f"  for (int n = 0; n < {count}; n++) {{"] if count > 1 else []
        names = [
            f"{_buffer(access).name} + {access.offset}" + (f" + n * {access.strides[0]}" if count > 1 else "")
            for access in (left, right, output)
        ]
        if output.strides[1] == 1 and output.strides[2] != 1:
            rows, columns, names = columns, rows, [names[1], names[0], names[2]]
            left, right = _transposed(right), _transposed(left)
        row = columns
        if left.strides[2] in (0, 1) and right.strides[1] == 1 and right.strides[2] != 1:
            sizes = (rows, columns, terms, left.strides[1], right.strides[2], row)
            lines.append(f"  product_of_rows<{', '.join(map(str, sizes))}>({', '.join(names)});")
        else:
            sizes = (rows, columns, terms, left.strides[1], left.strides[2], right.strides[1], row)
            lines.append(f"  product<{', '.join(map(str, sizes))}>({', '.join(names)});")
        return lines + (["  }"] if count > 1 else [])


def _is_within(statement: Statement) -> bool:
    """Return whether a statement combines the elements of its innermost loop."""
    return statement.reduction is not None and len(statement.sizes) - 1 in statement.reduced


def _adds_lanes(loop: Loop) -> bool:
    """Return whether all that a loop combines are sums of numbers of single precision, and of enough of them."""
    combined = [each for each in loop.statements if _is_within(each)]
    sums = all(each.reduction == "sum" and _buffer(each.output).dtype == "float" for each in combined)
    return bool(combined) and sums and loop.size >= _LANES


def _one_by_one(size: int, block: _Block) -> list[str]:
    if size == 1:
        return ["{", *block.inside, "}"]
    clauses = "".join(f" reduction({kind}:{', '.join(names)})" for kind, names in block.clauses.items())
    return [f"#pragma omp simd{clauses}", f"for (int i = 0; i < {size}; i++) {{", *block.inside, "}"]


def _in_lanes(size: int, block: _Block) -> list[str]:
    """Return a loop over `size` elements as loops over lanes: the order of sums is that of the source."""
    whole, rest = size // _LANES * _LANES, size % _LANES
    lines = [f"for (int first = 0; first < {whole}; first += LANES)", *_lanes("LANES", "first", block)]
    return lines + (_lanes(str(rest), str(whole), block) if rest else [])


def _lanes(count: str, first: str, block: _Block) -> list[str]:
    head = f"for (int lane = 0; lane < {count}; lane++) {{ const int i = {first} + lane;"
    return ["{", "#pragma omp simd", head, *block.inside, "}", "}"]


def _transposed(factor: Access) -> Access:
    batch, rows, columns = factor.strides
    return replace(factor, strides=(batch, columns, rows))


def _is_given(buffer: Buffer) -> bool:
    return buffer.is_argument or buffer.values is not None


def _in_register(statement: Statement, access: Access, inside: set[Statement]) -> bool:
    assert access.buffer is not None
    return any(
        writer in inside and shares_loop(statement, access, writer) for writer in access.buffer.writers
    )
