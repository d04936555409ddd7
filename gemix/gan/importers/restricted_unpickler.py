"""A :class:`pickle.Unpickler` that builds plain containers and inert stand-ins only.

Guaranteed, whatever the bytes are:

- Nothing of the file is executed or imported. Globals are looked up in an allow-list of stand-ins;
  REDUCE and NEWOBJ reach these alone, BUILD only their `__setstate__`, which sets nothing. Opcodes
  that bypass :meth:`RestrictedUnpickler.find_class` are refused.
- Memory stays within a few times the file's size: lengths are compared with the bytes that follow
  before anything is allocated, and opcodes and indices of the memo are limited.
- No dictionary key overflows the stack or takes exponential time to hash: tuples, nested ones
  included, have at most `MAX_ELEMENTS`.

Not guaranteed: that a hostile file is refused quickly (keys of equal hashes cost quadratic time),
and whatever a fault in CPython's own unpickler would allow.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import BinaryIO

from gemix.core.errors import CheckpointError

MAX_OPCODES = 1_000_000  # three networks of 1024 x 1024 pixels take about 50,000
MAX_ELEMENTS = 1000  # of a tuple and all tuples in it; tuples of networks have about 10

# Left out are opcodes that bypass find_class (EXT1, EXT2, EXT4), copy references past the memo
# (DUP), or make integers of any length (LONG4), and those that no pickler of networks writes.
_CONSTANTS = {"NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE"}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINUNICODE8"}
_OBJECTS = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ"}
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_STACK = {"PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "BINPERSID"}
_VALUES = _CONSTANTS | _NUMBERS | _TEXTS | _BYTES | _OBJECTS
_ALLOWED = _VALUES | _TUPLES | _PUTS | _GETS | _FILLS | _STACK


class Inert:
    """Base of every stand-in.

    BUILD calls `__setstate__` where there is one, of a class as of its instances, and then sets no
    attributes.
    """

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        if state:
            raise CheckpointError(
                "the file sets attributes of something that has none in a network; it is refused"
            )


class InertFunction(Inert):
    """A function that REDUCE may call."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]):
        self._function = function

    def __call__(self, *arguments: object) -> object:
        """Return what the function returns."""
        return self._function(*arguments)


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickle one object; leave the stream at the end of its pickle.

    Args:
        stream: positioned at the start of the pickle.
        allowed: what a global of (module, name) stands for: subclasses of :class:`Inert`,
            instances of :class:`InertFunction`, or immutable values.

    Raises:
        CheckpointError: for opcodes that no network needs.
        Exception: of any kind, for a damaged pickle; :meth:`load` as well.
    """

    def __init__(
        self,
        stream: BinaryIO,
        allowed: Mapping[tuple[str, str], object],
        max_opcodes: int = MAX_OPCODES,
    ):
        start = stream.tell()
        _check_opcodes(stream, max_opcodes)
        stream.seek(start)
        super().__init__(stream)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> object:
        """Return the stand-in of a global.

        Raises:
            CheckpointError: for a global that is not in the allow-list.
        """
        if (module, name) not in self._allowed:
            raise CheckpointError(
                f"the file asks for {f'{module}.{name}'[:80]!r}, which no network needs; it is "
                "refused, and nothing in it was run"
            )
        return self._allowed[module, name]


def _check_opcodes(stream: BinaryIO, max_opcodes: int) -> None:
    """Refuse a pickle that could exhaust memory or the stack, before anything of it is built.

    `genops` reads every argument in full, so that a length beyond the end of the file fails here.
    """
    stack: list[int] = []  # the number of elements of each tuple, 1 for all else, and 0 for a mark
    memo: dict[int, int] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name, index = opcode.name, 0
        if name not in _ALLOWED:
            raise CheckpointError(
                f"the file has the pickle opcode {name}, which no network needs; it is refused"
            )
        if name in _PUTS:
            index = len(memo) if name == "MEMOIZE" else argument
            memo[index] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(0)
        else:
            taken = _take(stack, opcode.stack_before)
            result = sum(taken, 1) if name in _TUPLES else 1
            if name in ("BUILD", "BINPERSID"):  # may return what they take
                result = taken[0]
            if result > MAX_ELEMENTS:
                raise CheckpointError(
                    f"the file has a tuple of more than {MAX_ELEMENTS} elements, far more than "
                    "networks do; it is refused"
                )
            stack += len(opcode.stack_after) * [result]
        # the memo is an array: CPython allocates it up to the highest index
        if max(count, index) > max_opcodes:
            raise CheckpointError(
                f"the file has more than {max_opcodes} pickle opcodes, far more than networks do; "
                "it is refused"
            )


def _take(stack: list[int], before: list[pickletools.StackObject]) -> list[int]:
    """Remove and return what an opcode takes off the stack, from the bottom up."""
    taken, count = [], len(before)
    if pickletools.markobject in before:
        while (top := stack.pop()) != 0:
            taken.append(top)
        count = before.index(pickletools.markobject)
    return [*(stack.pop() for _ in range(count))][::-1] + taken
