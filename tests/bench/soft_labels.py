"""Are soft requests better than one-hot ones of the same generator, and how soft should they be?

    python -m tests.bench.soft_labels --kimg 48 --workdir runs/soft-labels

The sites, networks and trainings are those of :mod:`tests.bench.sharing`. The small site asks the
large site's generator for one-hot labels and for softmax labels of several T and b, and gives all
images the labels that the large site's teacher sees. Sets differ in what was asked for alone: image
i has the same latent in each. Two of them are curated as well. Every set is a method of a
comparison whose baseline is ``onehot``; a row has mean entropy and mean largest weight asked, mean
entropy seen (in nats, at most log 3 = 1.10), agreement, and macro-F2 of the classifiers. Each stage
is done once: a run that was stopped resumes.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store
from gemix.steps.compare.tables import difference_cells
from gemix.steps.sets.curate import SUFFIX, curate_set
from gemix.synthesis.fidelity import SetFidelity, read_fidelity
from tests.bench.sharing import (
    argument_parser,
    large_site,
    make_set,
    prepared,
    run,
    small_config,
)

BASELINE = "onehot"
HEADER = (
    "method | images | entropy asked | largest weight asked | entropy seen | correlation | "
    "agreement | macro-F2 | macro-FNR | difference (of all methods at once)"
)


def main() -> None:
    """Make the sets, compare them, print a row for each."""
    parser = argument_parser("soft_labels")
    parser.add_argument("--fraction", type=float, default=0.1, help="of the small site's patients")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.5, 1, 2])
    parser.add_argument("--biases", type=float, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--curated", nargs="*", default=["softmax-T1-b2", BASELINE], help="sets to curate as well"
    )
    options = parser.parse_args()
    shared = f"{options.workdir}/shared"
    large_site(options, shared)
    if not options.large_only:
        small_site(options, shared)


def small_site(options: argparse.Namespace, shared: str) -> None:
    """Make the small site's sets, and compare classifiers that are trained with them."""
    soft = {
        f"softmax-T{temperature:g}-b{bias:g}": {"temperature": temperature, "bias": bias}
        for temperature in options.temperatures
        for bias in options.biases
    }
    methods = [*soft, BASELINE, *(f"{name}{SUFFIX}" for name in options.curated)]
    config = small_config(options, shared, methods, [options.fraction], BASELINE)
    workspace = prepared(config, options)
    make_set(config, workspace, "onehot", BASELINE)
    for name, settings in soft.items():
        labels = dataclasses.replace(config.labels, **settings)
        make_set(dataclasses.replace(config, labels=labels), workspace, "softmax", name)
    for name in options.curated:
        curate_set(config, workspace, name)
    found = run(config, workspace)
    for block in found["blocks"]:
        print(f"\n{block['patients']} training patients, {block['draws']} draw(s) of them:")
        print(HEADER)
        rows = {row["method"]: row for row in block["methods"]}
        for method in methods:
            print(row_of(rows[method], Store(workspace.synthetic(method))), flush=True)


def row_of(compared: dict[str, Any], store: Store) -> str:
    """Return the row of a method."""
    fidelity = read_fidelity(store)
    cells = [compared["method"], str(Manifest.load(store).images("train")), *label_cells(fidelity)]
    if compared["failure"] is not None:
        return " | ".join([*cells, f"failed: {compared['failure']}"])
    rates, deviations = compared["rates"], compared["deviations"]
    cells.append(f"{rates['macro_f2']:.3f} ± {deviations['macro_f2']:.3f}")
    cells.append(f"{rates['fnr']:.3f}")
    if compared["differences"]:
        delta, _, joint, *_ = difference_cells(compared)
        cells.append(f"{delta} ({joint})")
    return " | ".join(cells)


def label_cells(fidelity: SetFidelity) -> list[str]:
    """Return what was asked for and what the first teacher sees, means over the images."""
    seen = fidelity.teachers[0].synthetic
    images = seen.agreement.images
    asked = sum(bin_.count * bin_.asked for bin_ in seen.entropies) / images
    shown = sum(bin_.count * bin_.seen for bin_ in seen.entropies) / images
    correlation = seen.entropy_correlation
    return [
        *(f"{asked:.2f}", f"{seen.expected_agreement:.2f}", f"{shown:.2f}"),
        "–" if correlation is None else f"{correlation:.2f}",
        f"{seen.agreement.value:.3f}",
    ]


if __name__ == "__main__":
    main()
