"""What every command shares: arguments, help, error reporting and exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence

from gemix.config import PipelineConfig, load, preset_names
from gemix.core.logs import configure_logging
from gemix.io.workspace import Workspace
from jobs._runtime.ray_cluster import find_user_error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A parsed command line."""

    config: PipelineConfig
    workspace: Workspace
    overwrite: bool
    options: argparse.Namespace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One command: what its help says, its own options, and what it runs."""

    name: str
    summary: str
    reads: str
    writes: str
    costs: str
    run: Callable[[Request], object]
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    preset: str = "demo"
    sections: tuple[str, ...] = ()
    """Sections of the configuration that the command reads."""
    positional: str = "section.key=value"
    """Name of the positional arguments in the help."""

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse a command line, by default that of the process."""
        return self.parser().parse_intermixed_args(argv)

    def parser(self) -> argparse.ArgumentParser:
        """The argument parser."""
        names = " ".join(self.sections)
        settings = f"\n\nsettings: {names} (explained by `gemix config {names}`)" if names else ""
        parser = argparse.ArgumentParser(
            prog=f"gemix {self.name}",
            description=(
                f"{self.summary}\n\nreads:  {self.reads}\nwrites: {self.writes}\n"
                f"costs:  {self.costs}{settings}"
            ),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument(
            "-c",
            "--config",
            default=self.preset,
            help=f"a preset ({', '.join(preset_names())}) or a YAML file (default: %(default)s)",
        )
        parser.add_argument(
            "-w",
            "--workdir",
            help="work directory, a path or s3:// URL (default: runs/<name of the config>)",
        )
        parser.add_argument(
            "--overwrite", action="store_true", help="replace a finished result of this step"
        )
        volume = parser.add_mutually_exclusive_group()
        volume.add_argument(
            "-v", "--verbose", action="store_true", help="log details for debugging"
        )
        volume.add_argument(
            "-q", "--quiet", action="store_true", help="log warnings and errors alone"
        )
        self.add_options(parser)
        parser.add_argument(
            "overrides", nargs="*", metavar=self.positional, help="settings to change"
        )
        return parser

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Parse, run, and turn the errors of gemix into one message and an exit code."""
        args = self.parse(argv)
        quiet = logging.WARNING if args.quiet else logging.INFO
        configure_logging(logging.DEBUG if args.verbose else quiet)
        name = args.config.rsplit("/", 1)[-1].removesuffix(".yaml")
        try:
            request = Request(
                config=load(args.config, args.overrides),
                workspace=Workspace.at(args.workdir or f"runs/{name}"),
                overwrite=args.overwrite,
                options=args,
            )
            self.run(request)
        except Exception as error:
            known = find_user_error(error)
            if known is None:
                raise
            print(f"gemix {self.name}: {known}", file=sys.stderr)
            return known.exit_code
        return 0
