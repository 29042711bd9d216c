"""Memory traffic and products of a compiled program, from its text, each loop in all its turns.

XLA's own `cost_analysis` counts the body of a loop once. This count follows the same rules: an
operation reads its operands and writes its result, a slice reads what it cuts out, and a fusion
reads and writes nothing inside. Loops whose number of turns is not in the text, as that of a search
is not, count once here too.

Much of that traffic never leaves a TPU's chip: the compiler keeps arrays in a memory there, says so
in their layouts, and copies them ahead. What goes to and from the main memory is counted apart.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_PLACED = re.compile(r"\b[a-z]+\d*\[[\d,]*\](?:\{[^}]*\})?")
_ON_CHIP = re.compile(r"S\([1-9]\)")  # memory that is not the default one
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "copy-done"),
    *("partition-id", "replica-id", "opt-barrier", "async-done", "slice-done"),
}
_SLICES = {"slice", "dynamic-slice", "gather"}
_COPIES = {"copy-start", "slice-start"}
_CALLS = {"while": "body", "call": "to_apply", "async-start": "calls"}


class Instruction(NamedTuple):
    """A line of a program: its name, type, operation, operands' names and the whole text."""

    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    text: str
    is_root: bool


Program = dict[str, list[Instruction]]
"""The instructions of each computation; that which runs is called "ENTRY"."""


def array_bytes(text: str) -> int:
    """The bytes of all arrays that a type names, such as `(f32[64,32000], s32[])`."""
    return sum(
        _BYTES.get(kind, 4) * math.prod(int(n) for n in axes.split(",") if n)
        for kind, axes in _ARRAY.findall(text)
    )


def parse(hlo: str) -> Program:
    """The computations of a compiled program's text."""
    program: Program = {}
    for line in hlo.splitlines():
        if match := _COMPUTATION.fullmatch(line):
            current = program.setdefault("ENTRY" if match[1] else match[2], [])
        elif match := _INSTRUCTION.match(line):
            root, name, kind, operation, rest = match.groups()
            operands = tuple(re.findall(r"%([\w.-]+)", rest.split(")")[0]))
            current.append(Instruction(name, kind, operation, operands, line, bool(root)))
    return program


class Cost(NamedTuple):
    """What an instruction costs each time that it runs.

    Attributes:
      instruction: itself.
      traffic: bytes read and written.
      far: those of them in the main memory.
      flops: those of matrix products.
      times: how often it runs.
    """

    instruction: Instruction
    traffic: int
    far: int
    flops: int
    times: int


def costs(program: Program) -> Iterator[Cost]:
    """The costs of all instructions that do something, but of loops those of their bodies."""
    yield from _costs(program, "ENTRY", 1)


def main_memory_bytes(hlo: str) -> int:
    """The bytes that a program reads from the main memory and writes there."""
    return sum(c.far * c.times for c in costs(parse(hlo)))


def estimated_cycles(hlo: str) -> int:
    """The cycles that a TPU's compiler estimates for all fusions of a program, added up.

    Copies that go on beside them have no estimate.
    """
    estimates = ((_CYCLES.search(c.instruction.text), c.times) for c in costs(parse(hlo)))
    return sum(int(match[1]) * times for match, times in estimates if match)


class LoopFactors(NamedTuple):
    """How many times the FLOPs and the traffic are that count each loop once."""

    flops: float
    traffic: float


def loop_factors(hlo: str) -> LoopFactors:
    """What to multiply XLA's counts of a program with.

    The details of the two counts of traffic differ, so only the ratio is taken from this one.
    """
    every = list(costs(parse(hlo)))
    flops, traffic = (
        sum(getattr(c, field) * c.times for c in every)
        / max(1, sum(getattr(c, field) for c in every))
        for field in ("flops", "traffic")
    )
    return LoopFactors(flops or 1.0, traffic or 1.0)


def _costs(program: Program, name: str, times: int) -> Iterator[Cost]:
    types = {one.name: one.type for one in program[name]}
    for one in program[name]:
        called = _CALLS.get(one.operation)
        if called and (body := _called(one, called)):
            yield from _costs(program, body, times * _turns(program, one))
        elif one.operation not in _FREE:
            moved = _moved(program, one, types)
            traffic = sum(size for size, _ in moved)
            far = sum(size for size, kind in moved if not _ON_CHIP.search(kind))
            yield Cost(one, traffic, far, _flops(program, one, types), times)


def _called(one: Instruction, how: str) -> str | None:
    """The name of a computation that an instruction runs."""
    match = re.search(rf"{how}=%?([\w.-]+)", one.text)
    return match[1] if match else None


def _turns(program: Program, one: Instruction) -> int:
    """How often a loop turns: as XLA notes it, or as a condition `counter < constant` says."""
    if one.operation != "while":
        return 1
    if noted := re.search(r'known_trip_count":\{"n":"(\d+)"', one.text):
        return int(noted[1])
    condition = program[_called(one, "condition") or ""]
    root = next(x for x in condition if x.is_root)
    by_name = {x.name: x.text for x in condition}
    limits = [re.search(r"constant\((\d+)\)", by_name.get(name, "")) for name in root.operands]
    is_count = root.operation == "compare" and "direction=LT" in root.text and any(limits)
    return int(next(m[1] for m in limits if m)) if is_count else 1


def _flops(program: Program, one: Instruction, types: dict[str, str]) -> int:
    """Two for each multiplication of a product, which on a TPU is a convolution."""
    if one.operation == "fusion" and (name := _called(one, "calls")):
        inside = {x.name: x.type for x in program[name]}
        return sum(_flops(program, x, inside) for x in program[name])
    if one.operation == "convolution" and (
        labels := re.search(r"dim_labels=\w+_(\w+)->", one.text)
    ):
        kernel = _axes(types[one.operands[1]])
        window = dict(re.findall(r"(size|stride|pad)=([\w]+)", one.text.split("window={")[-1]))
        sizes, strides, pads = (window.get(k, "").split("x") for k in ("size", "stride", "pad"))
        terms = kernel[labels[1].index("i")]
        for i, size in enumerate(filter(None, sizes)):
            # A window that strides or is padded is an axis of the batch or of the result.
            is_sum = strides == [""] and (pads == [""] or pads[i] == "0_0")
            terms *= int(size) if is_sum else 1
        return 2 * math.prod(_axes(one.type)) * terms
    return 0


def _axes(kind: str) -> list[int]:
    """The lengths of the axes of an array's type."""
    match = _ARRAY.search(kind)
    return [int(n) for n in match[2].split(",") if n] if match else []


def _moved(program: Program, one: Instruction, types: dict[str, str]) -> list[tuple[int, str]]:
    """The bytes of each array that are read or written, and its type."""
    read = [(array_bytes(kind), kind) for kind in (types.get(name, "") for name in one.operands)]
    written = [(array_bytes(kind), kind) for kind in _PLACED.findall(one.type)]
    if "AllocateBuffer" in one.text or "ConcatBitcast" in one.text:
        return []
    if one.operation in _SLICES:
        return [(size, read[0][1]) for size, _ in written] + written
    if one.operation in _COPIES:  # its type names source and target
        (first, source), (second, target), *_ = written
        size = min(first, second)
        return [(size, source), (size, target)]
    if one.operation == "dynamic-update-slice":
        return [read[1], (read[1][0], one.type)]
    if one.operation == "fusion" and (name := _called(one, "calls")):
        parts = zip(written, _written(program[name]), strict=True)
        return [
            *((_read(program, name, i, size), kind) for i, (size, kind) in enumerate(read)),
            *((min(size, part), kind) for (size, kind), part in parts),
        ]
    return read + written


def _read(program: Program, computation: str, index: int, size: int) -> int:
    """The bytes that a fusion reads of a parameter, which has so many."""
    inside = program[computation]
    is_it = f"parameter({index})"
    parameter = next((x.name for x in inside if x.operation == "parameter" and is_it in x.text), "")
    total, names = 0, {parameter}
    for one in inside:
        for place, name in enumerate(one.operands):
            if name not in names:
                continue
            if one.operation == "bitcast":
                names.add(one.name)
            elif one.operation == "fusion" and (called := _called(one, "calls")):
                total += _read(program, called, place, size)
            elif one.operation in _SLICES and place == 0:
                total += array_bytes(one.type)
            elif one.operation != "dynamic-update-slice" or place:
                total += size
    return min(size, total)


def _written(inside: list[Instruction]) -> Iterator[int]:
    """The bytes that a fusion writes of each part of its result."""
    by_name = {x.name: x for x in inside}
    root = next(x for x in inside if x.is_root)
    parts = [by_name[name] for name in root.operands] if root.operation == "tuple" else [root]
    for part in parts:
        while part.operation == "bitcast":
            part = by_name[part.operands[0]]
        is_update = part.operation == "dynamic-update-slice"
        yield array_bytes(by_name[part.operands[1]].type if is_update else part.type)
