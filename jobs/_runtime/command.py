"""Base of all commands: arguments, help, signals, error messages and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Sequence

import gemix
from gemix.config import PipelineConfig, load, preset_names
from gemix.core.errors import GemixError
from gemix.core.logs import configure_logging
from gemix.core.stop import STOP, Stopped
from gemix.io.lease import Lease
from gemix.io.storage import Store
from gemix.io.workspace import Workspace

# Threads of OpenMP that spin long while they wait slow down a training beside any other program;
# threads that never spin slow down small networks.
GOMP_SPINCOUNT = "20000"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A parsed command line."""

    config: PipelineConfig
    workspace: Workspace
    overwrite: bool
    options: argparse.Namespace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One command: the text of its help, its own options, and the function it runs.

    `run` imports what is slow to import (PyTorch, Ray, MLflow): help and errors of settings come
    first, and signals are handled by then.

    Attributes:
        reads, writes, costs: what a user wants to know before.
        leases: steps whose results in the work directory it writes; no other process may write
            them at the same time.
        preset: the default of ``--config``.
        sections: the sections of the configuration that it reads.
        positional: the name of the positional arguments in the help.
    """

    name: str
    summary: str
    reads: str
    writes: str
    costs: str
    run: Callable[[Request], object]
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    preset: str = "demo"
    sections: tuple[str, ...] = ()
    leases: tuple[str, ...] = ()
    positional: str = "section.key=value"

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse a command line, by default that of the process."""
        return self.parser().parse_intermixed_args(argv)

    def parser(self) -> argparse.ArgumentParser:
        """Return the argument parser."""
        names = " ".join(self.sections)
        settings = f"\n\nsettings: {names} (explained by `gemix config {names}`)" if names else ""
        parser = argparse.ArgumentParser(
            prog=f"gemix {self.name}",
            description=(
                f"{self.summary}\n\nreads:  {self.reads}\nwrites: {self.writes}\n"
                f"costs:  {self.costs}{settings}"
            ),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # an option of the command's own comes first: gemix promote --version N
            conflict_handler="resolve",
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
        parser.add_argument("--version", action="version", version=f"gemix {gemix.__version__}")
        volume = parser.add_mutually_exclusive_group()
        volume.add_argument(
            "-v", "--verbose", action="store_true", help="log details for debugging, Ray's too"
        )
        volume.add_argument(
            "-q", "--quiet", action="store_true", help="log warnings and errors only"
        )
        self.add_options(parser)
        parser.add_argument(
            "overrides", nargs="*", metavar=self.positional, help="settings to change"
        )
        return parser

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Parse the command line and run.

        Returns:
            The exit code: 0 done, 1 failed, 2 a bad command line or configuration, 130 stopped by
            Ctrl-C, 143 by SIGTERM.
        """
        args = self.parse(argv)
        level = logging.WARNING if args.quiet else logging.INFO
        configure_logging(logging.DEBUG if args.verbose else level)
        # read when PyTorch is imported; see jobs._runtime.ray_cluster for the workers
        os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINCOUNT)
        name = args.config.rsplit("/", 1)[-1].removesuffix(".yaml")
        try:
            with STOP.installed(), contextlib.ExitStack() as stack:
                request = Request(
                    config=load(args.config, args.overrides),
                    workspace=Workspace.at(args.workdir or f"runs/{name}"),
                    overwrite=args.overwrite,
                    options=args,
                )
                for step in self.leases:
                    stack.enter_context(Lease(Store(request.workspace.workdir), step))
                self.run(request)
        except Stopped as stopped:
            self._say("stopped; the same command resumes")
            return stopped.exit_code
        except Exception as error:
            known = _find_user_error(error)
            if known is None:
                raise
            self._say(str(known))
            return known.exit_code
        return 0

    def _say(self, text: str) -> None:
        print(f"gemix {self.name}: {text}", file=sys.stderr)


def _find_user_error(error: Exception) -> GemixError | None:
    """Return the error of gemix that was raised, or that Ray has wrapped."""
    if isinstance(error, GemixError):
        return error
    if "ray" not in sys.modules:
        return None
    from jobs._runtime.ray_errors import find_user_error

    return find_user_error(error)
