"""Compare methods of training under one protocol: train, predict, test once."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gemix.comparison.findings import THRESHOLD_MOVED, judge
from gemix.comparison.method import REPEATED, Method
from gemix.comparison.plan import Block, Unit, plan, units_of
from gemix.config import PipelineConfig
from gemix.core.errors import ConfigError, GemixError
from gemix.data.image_set import ImageSet
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.seal import sealed
from gemix.evaluation.classification.bootstrap import (
    Comparison,
    groups_by_class,
    warn_of_few_groups,
)
from gemix.evaluation.classification.mrmc import Estimate
from gemix.evaluation.classification.normal_class import describe_normal_class, normal_class
from gemix.evaluation.classification.probability_rates import expected_calibration_error
from gemix.io.results import COMPARISON
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.compare.scoring import UnitScorer, predictions_name
from gemix.steps.compare.statistics import (
    Predictions,
    compare_on,
    compare_threshold,
    operating_points,
)
from gemix.steps.compare.tables import comma_separated, latex, markdown
from gemix.steps.compare.training import Trained, UnitTrainer, validation_probabilities
from gemix.steps.runtime.classifier_training import check_training
from gemix.steps.runtime.executor import Executor, LocalExecutor
from gemix.steps.runtime.outputs import CONFIG, clear_step
from gemix.steps.runtime.overlap import enforce_no_overlap, real_splits
from gemix.steps.runtime.test_openings import count_opening
from gemix.steps.runtime.training_sets import synthetic_sets, without_passed_audit
from gemix.tracking import mlflow_run as tracking
from gemix.tracking.mlflow_run import Run

log = logging.getLogger("gemix.compare")

TABLES = {"md": markdown, "csv": comma_separated, "tex": latex}


def compare(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    executor: Executor | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train each method as often as the settings say, then predict the test images once.

    Trainings that an earlier run has finished are kept: a stopped comparison goes on, and a method
    that is added is trained alone. A training that fails is told in the table; the others go on.

    Returns:
        What ``comparison.json`` holds: `blocks`, one for each model and fraction of the patients,
        with the methods, their rates, differences and findings; `test`, what they were tested on;
        `test_openings`, how often this test set was predicted in the work directory.

    Raises:
        ConfigError: for settings that do not fit the data or each other.
        DataError: for missing or unfit sets, or images that are both learned and held out.
        GemixError: if every training of the baseline failed.
    """
    settings = config.compare
    real = Manifest.load(Store(workspace.data))
    blocks = plan(settings, config.classifier.model, config.classifier.seed)
    sets = _check(config, workspace, real, blocks)
    generators = [
        Provenance(Store(url), f"the generator of the {name} images") for name, url in sets.items()
    ]
    learned, val, test = real_splits(workspace, "train", "val", "test")
    pairs = [*itertools.product([learned, *generators], [val, test]), (val, test)]
    overlap = enforce_no_overlap("compare", config, pairs)
    unaudited = without_passed_audit(config, sets, log)
    executor = executor or LocalExecutor()
    executor.require(config.compute)
    if overwrite:
        clear_step(workspace.comparison, COMPARISON)
    store = Store(workspace.comparison)
    store.write_bytes(CONFIG, config.to_yaml().encode())
    write_provenance(store, [learned, val], generators)
    with tracking.start_run(config, workspace.workdir, "compare") as run:
        run.set_tags(overlap.tags | {f"gemix.audit.{name}": why for name, why in unaudited.items()})
        with sealed("test"):
            trained = _train(config, workspace, executor, units_of(blocks), sets)
            validation = read_images([workspace.data], "val")
        normal = normal_class(real.classes, config.data.normal_class)
        log.info(describe_normal_class(real.classes, normal))
        power = [_power(config, block, trained, store, validation, normal) for block in blocks]
        tested = _score(config, workspace, executor, trained)
        test_images = read_images([workspace.data], "test")
        patients = groups_by_class(test_images.labels, test_images.groups, test_images.classes)
        if warning := warn_of_few_groups(patients):
            log.warning(warning)
        results = {
            "baseline": settings.baseline,
            "budget": settings.budget,
            "blocks": [
                {
                    **_block(
                        config, block, trained, tested, store, validation, test_images, normal
                    ),
                    "detectable": found,
                }
                for block, found in zip(blocks, power, strict=True)
            ],
            "test": {
                "images": len(test_images),
                "groups": len(set(test_images.groups)),
                "groups_by_class": patients,
                "classes": list(test_images.classes),
                "normal_class": None if normal is None else test_images.classes[normal],
                "digest": test_images.digest,
            },
            "test_openings": count_opening(workspace, "compare", test_images.digest),
            "overlap": overlap.to_json(),
        }
        _write(store, results, run)
    return results


def _check(
    config: PipelineConfig, workspace: Workspace, real: Manifest, blocks: Sequence[Block]
) -> dict[str, str]:
    """Check what can be checked before anything runs; return the synthetic sets by name."""
    settings = config.compare
    for block in blocks:
        classifier = dataclasses.replace(config.classifier, model=block.model)
        check_training(classifier, real, workers=1, normal=config.data.normal_class)
    methods = [Method.parse(name) for name in settings.methods]
    for method in methods:
        method.configured(config.classifier)
    if config.classifier.seed + settings.seeds > 2**32:
        raise ConfigError(f"compare.seeds={settings.seeds}: too many after classifier.seed")
    names = dict.fromkeys(method.synthetic for method in methods if method.synthetic)
    sets = synthetic_sets(config, workspace, tuple(names), log) if names else {}
    if any(method.images == REPEATED for method in methods):
        if settings.budget == "steps":
            raise ConfigError(
                "compare.methods: with compare.budget=steps 'repeated' trains as 'real' does; "
                "leave it out, or set compare.budget=exposures"
            )
        if not sets:
            raise ConfigError(
                "compare.methods: 'repeated' shows real images as often as with a synthetic set, "
                "and there is none among them; add one, or leave it out"
            )
    for name, url in sets.items():
        found = Manifest.load(Store(url))
        if (found.classes, found.image_shape) != (real.classes, real.image_shape):
            raise ConfigError(
                f"compare.methods: {name} has classes {list(found.classes)} and images of "
                f"{found.image_shape}, the real set {list(real.classes)} and {real.image_shape}; "
                "synthesize it from a generator of these data"
            )
    return sets


def _train(
    config: PipelineConfig,
    workspace: Workspace,
    executor: Executor,
    units: Sequence[Unit],
    sets: dict[str, str],
) -> dict[Unit, Trained]:
    build = functools.partial(
        UnitTrainer, config.to_mapping(), workspace.comparison, workspace.data, sets
    )
    found = executor.map_with_state(
        build,
        units,
        title="compare",
        unit="trainings",
        compute=config.compute,
        weights=[1] * len(units),
    )
    trained = dict(zip(units, found, strict=True))
    baseline = [t for unit, t in trained.items() if unit.method == config.compare.baseline]
    if all(one.failure is not None for one in baseline):
        raise GemixError(
            f"every training of the baseline {config.compare.baseline} failed: "
            f"{baseline[0].failure}"
        )
    return trained


def _score(
    config: PipelineConfig,
    workspace: Workspace,
    executor: Executor,
    trained: dict[Unit, Trained],
) -> dict[str, np.ndarray]:
    """Return the test predictions by address, float32 [N, K] each."""
    addresses = list(dict.fromkeys(one.address for one in trained.values() if one.scores))
    build = functools.partial(
        UnitScorer,
        workspace.comparison,
        workspace.data,
        config.compute.cpus_per_worker,
        config.compare.keep_weights,
    )
    found = executor.map_with_state(
        build,
        addresses,
        title="test",
        unit="classifiers",
        compute=config.compute,
        weights=[1] * len(addresses),
    )
    return dict(zip(addresses, found, strict=True))


def _complete(block: Block, trained: dict[Unit, Trained]) -> dict[str, list[Trained]]:
    """Return the trainings of the methods of which none failed."""
    found = {method: [trained[unit] for unit in units] for method, units in block.units.items()}
    return {m: rows for m, rows in found.items() if all(row.failure is None for row in rows)}


def _power(
    config: PipelineConfig,
    block: Block,
    trained: dict[Unit, Trained],
    store: Store,
    validation: ImageSet,
    normal: int | None,
) -> float | None:
    """Return the difference in macro-F2 that would be found with 80% power, by validation.

    It is told before the test split is opened: the median over the methods of what the standard
    error on the validation images, of about as many patients, allows.
    """
    complete = _complete(block, trained)
    baseline = config.compare.baseline
    if len(complete) < 2 or baseline not in complete or len(block.units[baseline]) < 2:
        return None
    found = compare_on(
        validation,
        {
            method: np.stack([validation_probabilities(store, row) for row in rows])
            for method, rows in complete.items()
        },
        config=config.compare,
        block=block,
        baseline=baseline,
        normal=normal,
    )
    detectable = [
        Estimate(value=0.0, error=d.error, df=math.inf if d.df is None else d.df).detectable()
        for comparison in found.values()
        if (d := comparison.differences.get("macro_f2")) is not None and d.error is not None
    ]
    if not detectable:
        return None
    median = float(np.median(detectable))
    log.info(
        "%s, fraction %g: %d validation patients and %d trainings a method find a difference of "
        "%.3f in macro-F2 with 80%% power; the test split is opened now",
        *(block.model, block.fraction, len(set(validation.groups))),
        *(len(block.units[baseline]), median),
    )
    return median


def _block(
    config: PipelineConfig,
    block: Block,
    trained: dict[Unit, Trained],
    tested: dict[str, np.ndarray],
    store: Store,
    validation: ImageSet,
    test: ImageSet,
    normal: int | None,
) -> dict[str, Any]:
    """Return one block of ``comparison.json``."""
    settings = config.compare
    complete = _complete(block, trained)
    if settings.baseline not in complete:
        reasons = [trained[u].failure for u in block.units[settings.baseline]]
        why = next(reason for reason in reasons if reason)
        raise GemixError(f"a training of the baseline {settings.baseline} failed: {why}")
    predictions = Predictions(
        validation={
            method: np.stack([validation_probabilities(store, row) for row in rows])
            for method, rows in complete.items()
        },
        test={m: np.stack([tested[row.address] for row in rows]) for m, rows in complete.items()},
    )
    thresholds, moved = operating_points(validation, predictions, settings, normal)
    controls = [name for name in settings.controls if name in complete]
    against = {
        name: compare_on(
            test,
            predictions.test,
            config=settings,
            block=block,
            baseline=name,
            normal=normal,
            thresholds=thresholds,
        )
        for name in dict.fromkeys([settings.baseline, *controls])
    }
    compared = dict(against[settings.baseline])
    if moved is not None:  # no method, so that the others are not corrected for it
        compared[THRESHOLD_MOVED] = compare_threshold(
            test, predictions, moved, settings, block, normal
        )
    rows = [settings.baseline, *([] if moved is None else [THRESHOLD_MOVED])]
    rows += [method for method in block.units if method != settings.baseline]
    methods = []
    for method in rows:
        if method not in compared:
            failures = [trained[unit].failure for unit in block.units[method]]
            methods.append({"method": method, "failure": next(f for f in failures if f)})
            continue
        probabilities = predictions.test.get(method, predictions.test[settings.baseline])
        row = _row(method, compared[method], probabilities, test)
        if method in complete:
            row |= _cost(complete[method])
        simpler = {settings.baseline, THRESHOLD_MOVED, *controls}
        if method not in simpler:
            finding = judge(method, against, len(complete[method]))
            row |= {"finding": finding.text, "helps": finding.helps, "harms": finding.harms}
            row |= {"fnr_falls": finding.fnr_falls, "excluded": finding.excluded}
        methods.append(row)
    some = complete[settings.baseline][0]
    return {
        "model": block.model,
        "fraction": block.fraction,
        "patients": some.patients,
        "images": some.real_images,
        "draws": block.draws,
        "seeds": settings.seeds,
        "methods": methods,
    }


def _row(
    method: str, found: Comparison, probabilities: np.ndarray, test: ImageSet
) -> dict[str, Any]:
    rates = dict(found.rates)
    if "brier" in rates:  # of probabilities, which a moved threshold leaves as they are
        errors = [expected_calibration_error(test.labels, rows) for rows in probabilities]
        rates["ece"] = float(np.mean(errors))
    return {
        "method": method,
        "failure": None,
        "rates": rates,
        "deviations": found.deviations,
        "intervals": {name: list(interval) for name, interval in found.intervals.items()},
        "differences": {name: dataclasses.asdict(d) for name, d in found.differences.items()},
        "recall_by_class": dict(zip(test.classes, found.by_class.recall.tolist(), strict=True)),
        "confusion": found.confusion.tolist(),
    }


def _cost(rows: Sequence[Trained]) -> dict[str, Any]:
    """Return what the trainings of a method took."""
    return {
        "trainings": len(rows),
        "steps": rows[0].steps,
        "real_exposures": rows[0].real_exposures,
        "synthetic_images": rows[0].synthetic_images,
        "seconds": sum(row.seconds for row in rows),
        "validation_macro_f2": [row.scores["val_macro_f2"] for row in rows if row.scores],
        "predictions": [row.address for row in rows],
    }


def _write(store: Store, results: dict[str, Any], run: Run) -> None:
    """Write and log tables and results, ``comparison.json`` last."""
    for block in results["blocks"]:
        name = f"{block['model']}-{block['fraction']:g}"
        for ending, render in TABLES.items():
            text = render(block)
            store.write_bytes(f"tables/{name}.{ending}", text.encode())
            run.log_text(text, f"tables/{name}.{ending}")
        for method in block["methods"]:
            if method["failure"] is None:
                prefix = f"{block['model']}/{block['fraction']:g}/{method['method']}"
                named = {f"{prefix}/{rate}": value for rate, value in method["rates"].items()}
                run.log_metrics({key.replace("+", "_"): value for key, value in named.items()})
    digest = results["test"]["digest"]
    results["predictions_file"] = predictions_name(digest)
    store.write_json(COMPARISON, results)
