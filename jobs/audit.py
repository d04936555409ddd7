"""Audit synthetic sets: do they give away whom their generator learned from?"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from gemix.core.errors import DataError
from jobs._runtime.command import Request
from jobs._runtime.set_command import SetCommand

if TYPE_CHECKING:
    from gemix.io.audit_record import Audit


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--real",
        action="append",
        default=[],
        metavar="DIR",
        help="a further set of real images that the generator may have learned from, beside "
        "<workdir>/data; may be given several times",
    )


def _run(request: Request) -> None:
    from gemix.steps.sets.audit import audit_set
    from gemix.steps.sets.find_sets import finished_sets

    names = request.options.sets or finished_sets(request.config, request.workspace)
    verdicts = {}
    for name in names:
        audit = audit_set(
            request.config,
            request.workspace,
            name,
            real=request.options.real,
            overwrite=request.overwrite,
        )
        print(_describe(name, audit, request.workspace.audit(audit.set_digest)), flush=True)
        verdicts[name] = audit.verdict
    if bad := [f"{name} {verdict}" for name, verdict in verdicts.items() if verdict != "passed"]:
        raise DataError(f"not passed: {', '.join(bad)}; the reasons are above and in audit.json")


def _describe(name: str, audit: Audit, pictures: str) -> str:
    lines = [f"{name}: {audit.verdict}", *(f"  {reason}" for reason in audit.reasons)]
    if audit.discriminator:
        found = audit.discriminator
        lines.append(
            f"  with the discriminator, which does not belong to a set: AUC {found.auc:.2f} "
            f"({found.low:.2f} to {found.high:.2f})"
        )
    return "\n".join([*lines, f"  worst pairs, which show real images: {pictures}/audit-pairs.png"])


COMMAND = SetCommand(
    name="audit",
    summary="Tell whether synthetic sets give away whom their generator learned from. Name methods "
    "or\ndirectories of sets (default: the finished sets of synthesis.methods). Exits with 0 if "
    "every\nset passed, with 1 if one failed or could not be decided.",
    reads="the sets, <workdir>/data (train and val), seen.parquet beside each set; the "
    "discriminator in <workdir>/gan if it is there",
    writes="audit.json in the directory of each set; <workdir>/audits: pictures of the worst pairs",
    costs="a minute or two for 1,000 images, 1,000 members and 250 held-out images on 2 CPU cores, "
    "most of it for features (audit.spaces=[pixels] does without)",
    sections=("audit", "metrics", "tracking"),
    run=_run,
    leases=("audit",),
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
