"""``gemix <command>``: the same mains as ``python -m jobs.<name>``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import gemix

COMMANDS = {
    "demo": "run the whole path on a built-in phantom, in minutes, on a laptop",
    "pipeline": "run the whole path: prepare to report",
    "prepare": "turn raw scans into checked, split Parquet shards",
    "verify": "check that a shard set is whole; name all that is damaged",
    "check": "find patients and images that two shard sets, or the splits of one, share",
    "train-teacher": "train classifiers that say what synthetic images show",
    "train-gan": "train the class-conditional StyleGAN2-ADA or CGAN",
    "import-stylegan": "import public StyleGAN2-ADA networks, to sample or to start from",
    "export-set": "export a synthetic set for others, without a record of patients",
    "export-gan": "export the networks of a training, for others to start from",
    "sample": "make a few images of given seeds and labels, to look at",
    "explore": "write a page with sliders: soft labels from a few latents, asked and seen",
    "synthesize": "make N images of soft labels, as Parquet shards",
    "curate": "leave copies, duplicates and unreal images out of synthetic sets",
    "card": "write what synthetic sets are made of, show and are for",
    "audit": "tell whether a synthetic set gives away whom it was learned from",
    "train-classifier": "train classifiers on real, and on real + synthetic images",
    "compare": "compare methods of training: images, augmentations, recipes",
    "sweep": "search T, b and N for the best classifier on validation",
    "evaluate": "evaluate the classifiers on the test set; register the best",
    "promote": "make the registered classifier the champion, if it passes the gate; or go back",
    "export-onnx": "write a classifier as an ONNX file, for platforms without Python",
    "report": "write one HTML page of it all",
    "config": "print every setting with its meaning, allowed values and default",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code (:meth:`jobs._runtime.command.Command.main`).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        module = importlib.import_module(f"jobs.{arguments[0].replace('-', '_')}")
        return module.COMMAND.main(arguments[1:])
    if arguments[:1] == ["--version"]:
        print(f"gemix {gemix.__version__}")
        return 0
    lines = "\n".join(f"  {name:18}{text}" for name, text in COMMANDS.items())
    usage = f"usage: gemix <command> [options] [section.key=value ...]\n\ncommands:\n{lines}\n"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage + "\n`gemix <command> --help` tells what it reads, writes and costs.")
        return 0
    print(f"{usage}\ngemix: unknown command {arguments[0]!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
