"""Follows the commands of a pickle; a file can do what is written here and nothing else.

Python's own unpickler looks names up, sets attributes, and hashes and compares whatever a file
builds, which a small file can make take for ever. Here the standard library only tells the
commands apart (:mod:`pickletools`), and following one takes a time and a memory that its own bytes
bound: dictionaries take text and small numbers as keys, sets hold nothing, numbers are short.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from gemix.core.errors import CheckpointError

MAX_COMMANDS = 1_000_000  # the three networks of 1024 x 1024 images take some 50,000
MAX_BITS = 128  # of a whole number; the longest that torch writes has 80
MAX_KEY_BITS = 32

# Commands whose argument is the value itself.
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_VALUES = _NUMBERS | _TEXTS | _BYTES | {"BINUNICODE8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclasses.dataclass(frozen=True, eq=False)
class Named:
    """What a name of the file stands for; a function can be called by it."""

    meaning: Any


class Ignored:
    """Stands for a value that nobody needs, such as a set or one of NumPy's."""


def follow(
    stream: BinaryIO,
    find: Callable[[str, str], Named],
    persistent: Callable[[object], object] | None = None,
    max_commands: int = MAX_COMMANDS,
) -> object:
    """What the pickle that begins here describes; the stream is left where it ends.

    It is made of numbers, text, bytes, None, tuples, lists, dictionaries, :class:`Ignored`,
    :class:`Named`, and what the functions return that `find` gives.

    Args:
        find: gives what the file may ask for, by module and name; it raises for all else.
        persistent: gives the object of a persistent id; None where there are none.

    Raises:
        CheckpointError: for anything that is not provided for.
        Exception: of any kind, for a damaged pickle.
    """
    machine = _Machine(find, persistent)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        # memo entries are numbered one by one, so no index is higher than the commands are many
        index = argument if "PUT" in opcode.name else 0
        if max(count, index) > max_commands:
            raise CheckpointError(
                f"the file has more than {max_commands} pickle commands, far more than networks do"
            )
        machine.do(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack and the memo of a pickle, as :mod:`pickletools` describes them."""

    def __init__(
        self,
        find: Callable[[str, str], Named],
        persistent: Callable[[object], object] | None,
    ):
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks up to each mark
        self.memo: dict[int, object] = {}

    def do(self, command: str, argument: Any) -> None:
        """Follows one command."""
        stack = self.stack
        if command in _VALUES:
            stack.append(_short(argument))
        elif command in _CONSTANTS:
            stack.append(_CONSTANTS[command])
        elif command in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[command])]
            stack.append(tuple(reversed(items)))
        else:
            self._do_other(command, argument)

    def _do_other(self, command: str, argument: Any) -> None:
        stack = self.stack
        match command:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE":
                items = tuple(self._marked())
                self.stack.append(items)
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._marked()
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                _of(list, stack[-1]).append(item)
            case "APPENDS":
                items = self._marked()
                _of(list, self.stack[-1]).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _of(dict, stack[-1])[_key(key)] = value
            case "SETITEMS":
                items = self._marked()
                target = _of(dict, self.stack[-1])
                for key, value in zip(items[::2], items[1::2], strict=True):
                    target[_key(key)] = value
            case "EMPTY_SET":
                stack.append(Ignored())
            case "ADDITEMS":
                self._marked()
                _of(Ignored, self.stack[-1])
            case "FROZENSET":
                self._marked()
                self.stack.append(Ignored())
            case "GLOBAL":
                stack.append(self.find(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self.find(_of(str, module), _of(str, name)))
            case "REDUCE" | "NEWOBJ":
                arguments, called = stack.pop(), stack.pop()
                stack.append(_of(Named, called).meaning(*_of(tuple, arguments)))
            case "BUILD":
                self._build()
            case "BINPERSID" if self.persistent:
                stack.append(self.persistent(stack.pop()))
            case _:
                raise CheckpointError(
                    f"the file has the pickle command {command}, which no network needs; it is "
                    "refused"
                )

    def _marked(self) -> list[Any]:
        """Takes everything from the last mark on."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        # a dictionary with attributes of its own may say that it has none
        if not isinstance(target, Ignored) and state != {}:
            raise CheckpointError(
                "the file sets attributes of something that has none in a network; it is refused"
            )


def _of(wanted: type, value: Any) -> Any:
    if type(value) is not wanted:
        raise CheckpointError(
            f"the file uses a {type(value).__name__} as a {wanted.__name__}; it is damaged or "
            "tampered with"
        )
    return value


def _short(value: Any) -> Any:
    """The value; numbers of any length would take their time wherever they are used."""
    if type(value) is int and value.bit_length() > MAX_BITS:
        raise CheckpointError(
            f"the file has a whole number of {value.bit_length()} bits, networks have none above "
            f"{MAX_BITS}; it is refused"
        )
    return value


def _key(key: Any) -> str | int:
    # hashing tuples that hold each other twice takes time exponential in their number, and long
    # numbers can be chosen to collide
    if type(key) is not str and (type(key) is not int or key.bit_length() > MAX_KEY_BITS):
        raise CheckpointError(
            f"the file has a dictionary with a key of type {type(key).__name__}, networks have "
            "text and small numbers alone; it is refused"
        )
    return key
