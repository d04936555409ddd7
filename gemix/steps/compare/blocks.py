"""One block of ``comparison.json``: methods that were trained on the same patients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemix.comparison.config import CompareConfig
from gemix.comparison.findings import THRESHOLD_MOVED, judge
from gemix.comparison.method import Method
from gemix.comparison.plan import Block, Unit
from gemix.data.image_set import ImageSet
from gemix.evaluation.classification.bootstrap import Comparison
from gemix.evaluation.classification.differences import FEWEST_GENERATORS
from gemix.evaluation.classification.probability_rates import expected_calibration_error
from gemix.steps.compare.statistics import (
    Predictions,
    compare_threshold,
    detectable_difference,
    operating_points,
    resampled,
)
from gemix.steps.compare.training import Trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedBlock:
    """A block whose trainings have ended.

    Attributes:
        methods: the trainings of each method.
        validation: class probabilities of each address, float32 [N, K].
    """

    config: CompareConfig
    block: Block
    methods: Mapping[str, Sequence[Trained]]
    validation: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        config: CompareConfig,
        block: Block,
        trained: Mapping[Unit, Trained],
        validation: Mapping[str, np.ndarray],
    ) -> TrainedBlock:
        """Take the trainings of a block."""
        methods = {name: [trained[unit] for unit in units] for name, units in block.units.items()}
        return cls(config=config, block=block, methods=methods, validation=validation)

    @property
    def failures(self) -> dict[str, str]:
        """Why methods failed, by name: the first reason of each."""
        found = {
            method: [row.failure for row in rows if row.failure is not None]
            for method, rows in self.methods.items()
        }
        return {method: reasons[0] for method, reasons in found.items() if reasons}

    @property
    def failure(self) -> str | None:
        """Why nothing can be compared: the baseline failed; None if it did not."""
        reason = self.failures.get(self.config.baseline)
        return None if reason is None else f"{self.config.baseline} failed: {reason}"

    @property
    def complete(self) -> dict[str, Sequence[Trained]]:
        """The methods of which no training failed."""
        return {m: rows for m, rows in self.methods.items() if m not in self.failures}

    def probabilities(self, by_address: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what complete methods predict, float32 [S, N, K] each."""
        return {
            method: np.stack([by_address[row.address] for row in rows])
            for method, rows in self.complete.items()
        }

    def detectable(self, images: ImageSet, normal: int | None) -> float | None:
        """Return the difference in macro-F2 that is found with 80% power: the median of methods.

        It is that of as many patients as the validation images are of; None for one training.
        """
        if self.failure or len(self.complete) < 2 or len(self.methods[self.config.baseline]) < 2:
            return None
        found = resampled(
            images,
            self.probabilities(self.validation),
            config=self.config,
            block=self.block,
            normal=normal,
        ).against(self.config.baseline)
        known = [d for one in found.values() if (d := detectable_difference(one)) is not None]
        return float(np.median(known)) if known else None

    def results(
        self,
        validation: ImageSet | None,
        test: ImageSet,
        predictions: Mapping[str, np.ndarray],
        normal: int | None,
        generator_patients: Mapping[str, int | None],
    ) -> list[dict[str, Any]]:
        """Return the rows of the methods.

        Args:
            validation: None for no rates at thresholds that it chooses.
            predictions: for the test images by address, float32 [N, K].
            generator_patients: training patients that the generator of each synthetic set learned
                from, None where that is unknown.
        """
        config, baseline = self.config, self.config.baseline
        found = Predictions(
            validation=self.probabilities(self.validation) if validation is not None else {},
            test=self.probabilities(predictions),
        )
        thresholds, moved = None, None
        if validation is not None:
            thresholds, moved = operating_points(validation, found, config, normal)
        of_test = resampled(
            test,
            found.test,
            config=config,
            block=self.block,
            normal=normal,
            thresholds=thresholds,
        )
        controls = [name for name in config.controls if name in self.complete]
        against = {name: of_test.against(name) for name in dict.fromkeys([baseline, *controls])}
        rows = []
        for method in (baseline, *(m for m in self.methods if m != baseline)):
            if method in self.failures:
                rows.append({"method": method, "failure": self.failures[method]})
                continue
            row = _row(method, against[baseline][method], found.test[method], test)
            row |= _cost(self.methods[method])
            if method != baseline:
                mine = against if method not in controls else {baseline: against[baseline]}
                row |= self._finding(method, mine)
            if name := Method.parse(method).synthetic:
                row["generator_patients"] = generator_patients.get(name)
                is_retrained = method in self.block.retrained
                number = self.block.draws if is_retrained else self.block.generators[method]
                row["generators"], row["retrained"] = number, is_retrained
                row["over_generators"] = number >= FEWEST_GENERATORS
            rows.append(row)
        if moved is not None and normal is not None:
            seen = compare_threshold(
                test, found.test[baseline], moved, normal=normal, seed=config.seed
            )
            rows.insert(1, _row(THRESHOLD_MOVED, seen, None, test))
        return rows

    def _finding(
        self, method: str, against: Mapping[str, Mapping[str, Comparison]]
    ) -> dict[str, Any]:
        failed = [name for name in self.config.controls if name in self.failures]
        finding = judge(
            method, against, trainings=len(self.methods[method]), failed_controls=failed
        )
        differences = {
            name: {
                rate: dataclasses.asdict(difference)
                for rate, difference in found[method].differences.items()
                if rate in ("macro_f2", "fnr")
            }
            for name, found in list(against.items())[1:]
        }
        return {
            "finding": finding.text,
            "helps": finding.helps,
            "harms": finding.harms,
            "fnr_falls": finding.fnr_falls,
            "excluded": finding.excluded,
            "differences_to_controls": differences,
        }


def _row(
    method: str, found: Comparison, probabilities: np.ndarray | None, test: ImageSet
) -> dict[str, Any]:
    rates = dict(found.rates)
    if probabilities is not None:
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
        "validation_macro_f2": [row.scores["val_macro_f2"] for row in rows],
        "predictions": [row.address for row in rows],
    }
