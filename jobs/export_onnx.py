"""Export a classifier as an ONNX file."""

from __future__ import annotations

import argparse
import sys

from jobs._runtime.command import Command, Request


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="the file to write, a path or s3:// URL that ends in .onnx")
    parser.add_argument(
        "--classifier",
        help="name of its directory below <workdir>/classifiers, as softmax-seed0 (default: the "
        "best on validation)",
    )


def _run(request: Request) -> None:
    from gemix.steps.export_onnx import export_onnx

    options = request.options
    done = export_onnx(
        request.workspace, options.out, name=options.classifier, overwrite=request.overwrite
    )
    print(
        f"{done.classifier} in {options.out}: probabilities within {done.difference:.1g} of "
        f"PyTorch's\n\n{done.cpu}, {done.threads} thread(s), median ms a batch\n"
        f"{'batch':>5} {'PyTorch':>9} {'onnxruntime':>12}"
    )
    for row in done.latencies:
        print(f"{row['batch']:>5} {row['pytorch_ms']:>9.2f} {row['onnxruntime_ms']:>12.2f}")


COMMAND = Command(
    name="export-onnx",
    summary="Write a classifier as an ONNX file, from uint8 images to probabilities, and compare "
    "it with PyTorch.",
    reads="<workdir>/classifiers: classifiers.json, one classifier",
    writes="<out>.onnx, and <out>.json: classes, input, preprocessing, decision, checksums",
    costs="seconds to a minute; needs pip install onnx onnxruntime onnxscript",
    run=_run,
    add_options=_add_options,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
