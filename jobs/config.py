"""Print every setting with its value, meaning, allowed values and default."""

from __future__ import annotations

import argparse
import functools
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from gemix.config import PipelineConfig
from gemix.core.config_schema import (
    FieldDoc,
    InvalidConfig,
    doc_of,
    field_docs,
    field_types,
    unknown_key,
)
from jobs._runtime.command import Command, Request

COLUMN = 40  # where the meaning starts
WIDTH = 70  # of the meaning


class _ConfigCommand(Command):
    """A command whose arguments without ``=`` name sections."""

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        args = super().parse(argv)
        args.sections = [word for word in args.overrides if "=" not in word]
        args.overrides = [word for word in args.overrides if "=" in word]
        return args


def settings_text(config: PipelineConfig, sections: Sequence[str]) -> str:
    """Return the settings of some sections, or of all, as aligned text.

    Raises:
        InvalidConfig: for a section that does not exist.
    """
    hints = field_types(PipelineConfig)
    return "\n".join(
        "\n".join([f"{name}: {doc_of(hints[name])}", *_rows(config, name), ""])
        for name in _checked(sections)
    )


def settings_yaml(config: PipelineConfig, sections: Sequence[str]) -> str:
    """Return the settings of some sections, or of all, as YAML that ``-c`` reads.

    Raises:
        InvalidConfig: for a section that does not exist.
    """
    tree = config.to_mapping()
    return yaml.safe_dump({name: tree[name] for name in _checked(sections)}, sort_keys=False)


def _checked(sections: Sequence[str]) -> list[str]:
    known = list(field_types(PipelineConfig))
    unknown = [unknown_key(name, name, known) for name in sections if name not in known]
    if unknown:
        raise InvalidConfig(unknown)
    return [name for name in known if name in sections or not sections]


def _rows(config: PipelineConfig, section: str) -> Iterator[str]:
    for entry in field_docs(PipelineConfig):
        if entry.name.startswith(f"{section}."):
            yield _row(entry, functools.reduce(getattr, entry.name.split("."), config))


def _row(entry: FieldDoc, value: Any) -> str:
    left = f"{entry.name} = {_text(value)}"
    facts = [entry.allowed, f"default {_text(entry.default)}"]
    if entry.methods:
        facts.append(f"only for {', '.join(entry.methods)}")
    if entry.is_operational:
        facts.append("may change between attempts")
    right = [line for text in (entry.doc, "; ".join(facts)) for line in textwrap.wrap(text, WIDTH)]
    first = f"  {left}".ljust(COLUMN)
    if len(first) > COLUMN:
        return "\n".join([*_indented(left, 2), *(" " * COLUMN + line for line in right)])
    return "\n".join([first + right[0], *(" " * COLUMN + line for line in right[1:])])


def _indented(text: str, indent: int) -> list[str]:
    margin = " " * indent
    return textwrap.wrap(text, COLUMN + WIDTH, initial_indent=margin, subsequent_indent=2 * margin)


def _text(value: Any) -> str:
    """Return a value as it is written after ``section.key=``."""
    if isinstance(value, str):
        return value or "''"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--yaml", action="store_true", help="print the resolved configuration as YAML"
    )


def _run(request: Request) -> None:
    write = settings_yaml if request.options.yaml else settings_text
    print(write(request.config, request.options.sections), end="")


COMMAND = _ConfigCommand(
    name="config",
    summary=(
        "Print every setting of a preset or file: value, meaning, allowed values, default.\n"
        "Name sections to see those alone: gemix config gan classifier"
    ),
    reads="the preset or file of -c",
    writes="nothing",
    costs="nothing",
    run=_run,
    add_options=_add_options,
    positional="section | section.key=value",
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
