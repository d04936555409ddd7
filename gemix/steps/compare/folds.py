"""Pool the comparisons of the folds of a cross-validation: every patient is tested once.

A fold is a preparation (``data.folds``, ``data.fold``) with a work directory of its own, in which
methods were compared. That comparison has refused generators that learned from patients whom the
fold holds out, so a generator serves several folds only if it comes from elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemix.comparison.method import Method
from gemix.comparison.plan import Block, plan
from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.data.image_set import ImageSet, concatenate
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.evaluation.classification.normal_class import normal_class
from gemix.io.comparison_record import COMPARISON
from gemix.io.records import to_json
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.compare.arrays import read_array
from gemix.steps.compare.blocks import TrainedBlock
from gemix.steps.compare.training import Trained
from gemix.steps.runtime.test_openings import describe_test


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fold:
    """The finished comparison of a fold.

    Attributes:
        found: its ``comparison.json``.
        test: the images of its test split.
        preprocessing: of its images, with the number of the fold.
    """

    store: Store
    found: Mapping[str, Any]
    test: ImageSet
    preprocessing: Mapping[str, Any]

    def block(self, wanted: Block) -> Mapping[str, Any]:
        """Return the block of a model and a fraction.

        Raises:
            DataError: if there is none with as many draws and seeds.
        """
        for block in self.found["blocks"]:
            if (block["model"], block["fraction"]) == (wanted.model, wanted.fraction):
                return block
        raise DataError(
            f"{self.store.url}: has not compared {wanted.model} at the fraction "
            f"{wanted.fraction:g}; run gemix compare there with the settings of this command"
        )

    def method(self, wanted: Block, name: str, seeds: int) -> Mapping[str, Any]:
        """Return the row of a method.

        Raises:
            DataError: if there is none with as many trainings.
        """
        block = self.block(wanted)
        row = next((row for row in block["methods"] if row["method"] == name), None)
        if row is None or (block["draws"], block["seeds"]) != (wanted.draws, seeds):
            raise DataError(
                f"{self.store.url}: has not compared {name} with {wanted.draws} draw(s) and "
                f"{seeds} seed(s); run gemix compare there with the settings of this command"
            )
        if row["failure"] is None and row.get("retrained", False) != (name in wanted.retrained):
            raise DataError(
                f"{self.store.url}: {name} has compare.generator="
                f"{'retrained' if row.get('retrained') else 'shared'} there; run gemix compare "
                "with the settings of this command there, or this command with that one"
            )
        return row


def pooled_results(config: PipelineConfig) -> dict[str, Any]:
    """Return what ``comparison.json`` holds, of the test sets of all folds as one.

    Trainings of one draw and seed count as one over the folds, so that intervals are over their
    repetitions and all patients. Thresholds are of each fold's validation patients, whom other
    folds test: rates at equal specificity, and the row of a moved threshold, are left to the folds.

    Raises:
        DataError: for a fold without a finished comparison by these settings; for folds that test
            the same patients, or do not test all.
    """
    folds = [_read(url) for url in config.compare.folds]
    _check(folds)
    test = concatenate([fold.test for fold in folds])
    normal = normal_class(test.classes, config.data.normal_class)
    blocks = [
        _pool(config, block, folds, test, normal)
        for block in plan(config.compare, config.classifier.model, config.classifier.seed)
    ]
    shared = ("shared", "unknown", "not_compared")
    return {
        "baseline": config.compare.baseline,
        "budget": config.compare.budget,
        "blocks": blocks,
        "test": to_json(describe_test(test, normal)),
        "test_openings": max(fold.found["test_openings"] for fold in folds),
        "folds": [fold.store.url for fold in folds],
        "overlap": {key: [v for f in folds for v in f.found["overlap"][key]] for key in shared},
        "worth": [],
    }


def _read(url: str) -> _Fold:
    workspace = Workspace.at(url)
    store = Store(workspace.comparison)
    if not store.exists(COMPARISON):
        raise DataError(f"{store.url}: no finished comparison; run gemix compare --workdir {url}")
    found, test = store.read_json(COMPARISON), read_images([workspace.data], "test")
    if found["test"]["digest"] != test.digest:
        raise DataError(
            f"{store.url}: compared on another test set than {workspace.data} has now; run gemix "
            f"compare --workdir {url} again"
        )
    preprocessing = Manifest.load(Store(workspace.data)).preprocessing
    return _Fold(store=store, found=found, test=test, preprocessing=preprocessing)


def _check(folds: Sequence[_Fold]) -> None:
    """Require that folds have the same classes, and that each patient is tested in one."""
    tested: dict[str, str] = {}
    for fold in folds:
        if fold.test.classes != folds[0].test.classes:
            raise DataError(f"{fold.store.url}: classes {fold.test.classes}; prepare folds alike")
        for group in set(fold.test.groups):
            other = tested.setdefault(group, fold.store.url)
            if other != fold.store.url:
                raise DataError(
                    f"{group} is tested in {other} and in {fold.store.url}; prepare each with "
                    "another data.fold of the same data.folds and data.split_seed"
                )
    count = folds[0].preprocessing.get("folds", 0)
    missing = set(range(count)) - {fold.preprocessing.get("fold") for fold in folds}
    if missing:
        raise DataError(
            f"compare.folds: fold {min(missing)} of {count} is not among them; prepare and compare "
            "it, and name its work directory too"
        )


def _pool(
    config: PipelineConfig,
    block: Block,
    folds: Sequence[_Fold],
    test: ImageSet,
    normal: int | None,
) -> dict[str, Any]:
    """Return a block of the results."""
    methods: dict[str, list[Trained]] = {}
    predictions: dict[str, np.ndarray] = {}
    generators, known = dict(block.generators), dict[str, int | None]()
    for name in block.units:
        rows = [fold.method(block, name, config.compare.seeds) for fold in folds]
        failed = next((row["failure"] for row in rows if row["failure"] is not None), None)
        if failed is not None:
            methods[name] = [Trained(failure=failed)]
            continue
        if name not in block.retrained:
            generators[name] = min(row.get("generators") or 1 for row in rows)
        if made_of := Method.parse(name).synthetic:
            known[made_of] = _known_patients(rows, [fold.block(block) for fold in folds])
        methods[name] = []
        for index, parts in enumerate(zip(*(row["predictions"] for row in rows), strict=True)):
            address = f"{name}, training {index}"
            predictions[address] = np.concatenate(
                [
                    read_array(fold.store / f"units/{part}", fold.found["predictions_file"])
                    for fold, part in zip(folds, parts, strict=True)
                ]
            )
            methods[name].append(_mean(address, index, rows))
    pooled = TrainedBlock(
        config=config.compare,
        block=dataclasses.replace(block, generators=generators),
        methods=methods,
        validation={},
    )
    rows = [] if pooled.failure else pooled.results(None, test, predictions, normal, known)
    for row in rows:
        row.pop("predictions", None)  # they stay with the folds
    blocks = [fold.block(block) for fold in folds]
    return {
        "model": block.model,
        "fraction": block.fraction,
        "patients": round(np.mean([one["patients"] for one in blocks])),
        "images": round(np.mean([one["images"] for one in blocks])),
        "draws": block.draws,
        "seeds": config.compare.seeds,
        "detectable": None,
        "failure": pooled.failure,
        "methods": rows,
    }


def _known_patients(
    rows: Sequence[Mapping[str, Any]], blocks: Sequence[Mapping[str, Any]]
) -> int | None:
    """Return the training patients that the generators of a method know, beside the mean fold.

    They are more than the patients of the pooled block by what they are more than those of a fold.

    Args:
        rows: of the method, one a fold.
        blocks: of the folds.
    """
    known = [row["generator_patients"] for row in rows]
    if None in known:
        return None
    own = [block["patients"] for block in blocks]
    return round(np.mean(own)) + max(k - n for k, n in zip(known, own, strict=True))


def _mean(address: str, index: int, rows: Sequence[Mapping[str, Any]]) -> Trained:
    """Return the trainings of one draw and seed in all folds as one.

    Args:
        address: that it gets.
        index: of the training in the method's rows.
        rows: of the method, one a fold.
    """
    return Trained(
        address=address,
        scores={"val_macro_f2": float(np.mean([r["validation_macro_f2"][index] for r in rows]))},
        steps=round(np.mean([row["steps"] for row in rows])),
        real_exposures=float(np.mean([row["real_exposures"] for row in rows])),
        synthetic_images=round(np.mean([row["synthetic_images"] for row in rows])),
        seconds=sum(row["seconds"] / row["trainings"] for row in rows),
    )
