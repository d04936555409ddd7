"""Verify a shard set: name all that is damaged."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from gemix.core.errors import DataError
from jobs._runtime.command import Command, Request

if TYPE_CHECKING:
    from gemix.data.shards.verify import Finding


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", help="a shard set, a path or s3:// URL")


def _run(request: Request) -> None:
    from gemix.data.shards.reading import damage_remedy
    from gemix.data.shards.verify import verify
    from gemix.io.storage import Store

    store = Store(request.options.directory)
    verification = verify(store)
    manifest, findings = verification.manifest, verification.findings
    if findings:
        print(_table(findings), flush=True)
        raise DataError(
            f"{store.url}: {len(findings)} problems; remove what the manifest does not know, and "
            f"for the rest {damage_remedy(manifest)}"
        )
    print(
        f"{manifest.images()} images in {len(manifest.shards)} shards, all whole; "
        f"digest {manifest.digest}"
    )


def _table(findings: tuple[Finding, ...]) -> str:
    rows = [("file", "problem"), *((finding.file, finding.problem) for finding in findings)]
    width = max(len(file) for file, _ in rows)
    return "\n".join(f"{file:{width}}  {problem}" for file, problem in rows)


COMMAND = Command(
    name="verify",
    summary="Read a whole shard set and name all that is damaged; exit with 1 if anything is.",
    reads="<directory>: a shard set of gemix prepare or gemix synthesize",
    writes="nothing",
    costs="reading every byte once, one CPU core, the memory of one shard",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
