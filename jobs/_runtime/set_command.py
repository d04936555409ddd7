"""Base of the commands that take finished synthetic sets."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from jobs._runtime.command import Command


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetCommand(Command):
    """A command whose arguments without ``=`` name sets: `options.sets`, a list."""

    positional: str = "set | section.key=value"

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """See :meth:`jobs._runtime.command.Command.parse`."""
        args = super().parse(argv)
        args.sets = [word for word in args.overrides if "=" not in word]
        args.overrides = [word for word in args.overrides if "=" in word]
        return args
