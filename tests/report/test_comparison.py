"""The part of the page about the comparison of methods."""

from __future__ import annotations

import dataclasses

import pytest

from gemix.core.errors import DataError
from gemix.io.comparison_record import (
    COMPARISON,
    ComparedBlock,
    ComparedMethod,
    EquivalentPatients,
    JointDifference,
    MethodComparison,
    MethodWorth,
)
from gemix.io.records import write_record
from gemix.io.results import EvaluatedSet
from gemix.io.storage import Store
from gemix.report.content import gather
from gemix.report.page import render


def row(method: str, macro_f2: float, delta: float | None = None, **more) -> ComparedMethod:
    differences = {}
    if delta is not None:
        found = JointDifference(
            delta=delta,
            low=delta - 0.02,
            high=delta + 0.02,
            joint_low=delta - 0.03,
            joint_high=delta + 0.03,
            p=0.01,
            p_joint=0.03,
            p_holm=0.04,
            not_above_zero=0.0123,
        )
        differences = {"macro_f2": found, "fnr": found}
    rates = {"macro_f2": macro_f2, "fnr": 1 - macro_f2, "macro_auroc": 0.9}
    return ComparedMethod(
        method=method, rates=rates, deviations={"macro_f2": 0.011}, differences=differences, **more
    )


def comparison(fractions: tuple[float, ...] = (0.25, 1.0)) -> MethodComparison:
    blocks = tuple(
        ComparedBlock(
            model="resnet10t",
            fraction=fraction,
            patients=round(300 * fraction),
            images=round(900 * fraction),
            draws=1 if fraction == 1 else 6,
            seeds=2,
            detectable=0.043,
            methods=(
                row("real", 0.80),
                row(
                    *("softmax+pretrain", 0.86, 0.06),
                    finding="helps: above <real>",
                    helps=True,
                    generators=1,
                ),
                row("made", 0.80, 0.0, finding="", generators=3, over_generators=True),
                ComparedMethod(method="onehot", failure="the loss is nan"),
            ),
        )
        for fraction in fractions
    )
    test = EvaluatedSet(images=60, groups=20)
    return MethodComparison(
        baseline="real",
        budget="steps",
        blocks=blocks,
        test=test,
        test_openings=3,
        worth=(
            MethodWorth(
                model="resnet10t",
                fraction=0.25,
                method="softmax+pretrain",
                equivalent_patients=EquivalentPatients(
                    patients=31.4, low=-8.0, high=90.0, fewest=-20.0, most=90.0
                ),
                of_ceiling=0.42,
            ),
        ),
    )


def page_of(finished, config, found: MethodComparison) -> str:
    write_record(Store(finished.comparison), COMPARISON, found)
    return render(gather(finished, config))


def test_methods_with_their_findings_are_shown(finished, config):
    page = page_of(finished, config, comparison())
    assert "Which methods help?" in page and "predicted 3 times" in page
    assert "resnet10t, 75 training patients (25%), 6 draws of them, 2 seeds" in page
    assert "0.860" in page and "± 0.011" in page
    assert "+0.030 to +0.090" in page and '<b class="better">+0.060</b>' in page
    assert "helps: above &lt;real&gt;" in page and "failed: the loss is nan" in page
    assert "a difference of 0.043" in page
    assert "probability that it is not better: 1.2%" in page
    assert "images of one generator, the intervals do not cover others" in page
    assert "images of 3 generators, the intervals hold for others" in page
    assert "+31" in page and "−8 to ≥ +90" in page and "42%" in page
    assert "macro-F2 by training patients" in page and "Brier" not in page


def test_without_a_comparison_there_is_no_section(source):
    assert "Which methods help?" not in source


def test_one_fraction_draws_no_learning_curve(finished, config):
    assert "by training patients" not in page_of(finished, config, comparison((1.0,)))


def test_a_damaged_file_is_named(finished, config):
    store = Store(finished.comparison)
    tree = dataclasses.asdict(comparison())
    del tree["budget"]
    store.write_json(COMPARISON, tree)
    with pytest.raises(DataError, match=r"comparison\.json: budget is missing; run gemix"):
        gather(finished, config)
