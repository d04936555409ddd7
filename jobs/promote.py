"""Make a registered classifier the champion, if it has passed the gate; or go back."""

from __future__ import annotations

import argparse
import sys

from gemix.core.errors import DataError
from jobs._runtime.command import Command, Request


def _add_options(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--version",
        metavar="N",
        help="version of tracking.registered_model to promote (default: the one that gemix "
        "evaluate registered last for this work directory)",
    )
    which.add_argument(
        "--sweep",
        action="store_true",
        help="promote the winner of gemix sweep in this work directory; it is registered if it is "
        "not yet",
    )
    which.add_argument(
        "--rollback", action="store_true", help="make the previous champion the champion again"
    )


def _run(request: Request) -> None:
    from gemix.steps.promote import promote, rollback

    config, workspace, options = request.config, request.workspace, request.options
    if options.rollback:
        decision = rollback(config, workspace)
    else:
        decision = promote(config, workspace, version=options.version, sweep=options.sweep)
    print("\n".join([decision.verdict, *(f"  {one}" for one in decision.reasons)]))
    for remark in decision.remarks:
        print(f"note: {remark}")
    print(f"ledger: {workspace.promotions}")
    if not decision.promoted:
        raise DataError(f"not promoted, for {len(decision.reasons)} reason(s), which are above")


COMMAND = Command(
    name="promote",
    summary="Make the classifier that gemix evaluate registered, or the winner of gemix sweep, the "
    "champion\n(an alias in MLflow's registry), if it is not inferior by more than "
    "promotion.fnr_margin to the\npresent one in what it misses, if the 95% interval of its gain "
    "in macro-F2 is above 0, and if its\nweights, its synthetic images' privacy audit and its "
    "model card are in order; else it is a challenger.\n"
    "Exits with 0 if it was promoted, with 1 if it was refused.",
    reads="<workdir>/data (test); evaluation, classifiers, synthetic, or sweep with --sweep; the "
    "versions that\n        MLflow has registered",
    writes="<workdir>/promotions: the decision and the model card; aliases champion, challenger, "
    "previous-champion",
    costs="one pass over the test set for each of two classifiers, which counts as an opening: "
    "seconds\n        for demo",
    sections=("promotion", "audit", "data", "tracking"),
    run=_run,
    leases=("promote",),
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
