"""``gemix <command>``: the same mains as ``python -m jobs.<name>``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": "the whole path on a built-in phantom, in minutes, on a laptop",
    "pipeline": "the whole path: prepare to report",
    "prepare": "raw scans to checked, split Parquet shards",
    "verify": "is a shard set whole? names all that is damaged",
    "check": "do two shard sets, or the splits of one, share patients or images?",
    "train-gan": "the class-conditional StyleGAN2-ADA or CGAN",
    "import-stylegan": "public StyleGAN2-ADA networks, to sample or to start from",
    "sample": "a few images of given seeds and labels, to look at",
    "synthesize": "N images of soft labels, as Parquet shards",
    "train-classifier": "classifiers on real, and on real + synthetic images",
    "evaluate": "the classifiers on the test set; registers the best",
    "report": "one HTML page of it all",
    "config": "every setting with its meaning, allowed values and default",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0 done, 1 failed, 2 a bad command line or configuration.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        module = importlib.import_module(f"jobs.{arguments[0].replace('-', '_')}")
        return module.COMMAND.main(arguments[1:])
    lines = "\n".join(f"  {name:18}{text}" for name, text in COMMANDS.items())
    usage = f"usage: gemix <command> [options] [section.key=value ...]\n\ncommands:\n{lines}\n"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage + "\n`gemix <command> --help` says what it reads, writes and costs.")
        return 0
    print(f"{usage}\ngemix: unknown command {arguments[0]!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
