"""``gemix verify``: is a shard set whole, and if not, all that is damaged."""

from __future__ import annotations

import argparse
import sys

from gemix.core.errors import DataError
from gemix.data.shards.reading import damage_remedy
from gemix.data.shards.verify import Finding, Verification, verify
from gemix.io.storage import Store
from jobs._runtime.command import Command


def verify_set(url: str) -> Verification:
    """Prints what was found.

    Raises:
        DataError: if anything is damaged, after the table of it all.
    """
    store = Store(url)
    verification = verify(store)
    manifest, findings = verification.manifest, verification.findings
    if findings:
        print(_table(findings), flush=True)
        raise DataError(
            f"{store.url}: {len(findings)} problems; remove what the manifest does not know, and "
            f"for the rest {damage_remedy(manifest)}"
        )
    print(
        f"verify: {manifest.images()} images in {len(manifest.shards)} shards, all whole; "
        f"digest {manifest.digest}",
        flush=True,
    )
    return verification


def _table(findings: tuple[Finding, ...]) -> str:
    width = max(len("file"), *(len(finding.file) for finding in findings))
    rows = [Finding("file", "problem"), *findings]
    return "\n".join(f"{row.file:{width}}  {row.problem}" for row in rows)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", help="a shard set, a path or s3:// URL")


COMMAND = Command(
    name="verify",
    summary="Reads a whole shard set and names all that is damaged; exits with 1 if anything is.",
    reads="<directory>: what gemix prepare or gemix synthesize left",
    writes="nothing",
    costs="reading every byte once, one CPU core, the memory of one shard",
    run=lambda request: verify_set(request.options.directory),
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
