from __future__ import annotations

import pytest

from gemix.io.results import BelowReal, TeacherRates
from gemix.report.verdict import FNR, MACRO_F2, decide, effect, judge, p_value

METHODS = ("softmax", "dirichlet", "onehot")


def difference(delta: float, half_width: float) -> dict:
    return {"delta": delta, "low": delta - half_width, "high": delta + half_width, "p": 0.2}


def row(method: str, macro_f2: float, fnr: float, f2=None, miss=None) -> dict:
    differences = {"macro_f2": f2, "fnr": miss} if f2 else {}
    return {
        "method": method,
        "macro_f2": macro_f2,
        "fnr": fnr,
        "accuracy": 0.7,
        "difference_to_real": differences,
    }


REAL = row("real", 0.60, 0.40)


@pytest.mark.parametrize(
    ("f2", "miss", "status"),
    [
        (difference(0.05, 0.01), difference(-0.05, 0.01), "shown"),
        (difference(0.05, 0.01), difference(-0.05, 0.09), "partly shown"),
        (difference(0.05, 0.09), difference(-0.05, 0.09), "not shown"),
        (difference(0.05, 0.01), difference(0.05, 0.01), "mixed"),
        (difference(-0.05, 0.01), difference(0.05, 0.09), "harmful"),
        (difference(-0.05, 0.01), difference(0.05, 0.01), "harmful"),
    ],
)
def test_the_status_follows_from_both_intervals(f2, miss, status):
    results = [REAL, row("softmax", 0.6 + f2["delta"], 0.4 + miss["delta"], f2, miss)]
    assert decide(results, METHODS).status == status


def test_lower_is_better_for_the_false_negative_rate():
    below = difference(-0.05, 0.01)
    assert effect(FNR, below) == "better"
    assert effect(MACRO_F2, below) == "worse"
    assert effect(FNR, difference(0.0, 0.01)) == "open"


def test_an_interval_that_touches_zero_shows_nothing():
    assert effect(MACRO_F2, {"delta": 0.02, "low": 0.0, "high": 0.04}) == "open"
    assert judge("open", "open") == "not shown"


def test_one_training_of_each_shows_nothing_of_the_methods():
    gain = row("softmax", 0.7, 0.3, difference(0.1, 0.01), difference(-0.1, 0.01))
    assert decide([REAL, gain | {"seeds": 3}], METHODS).status == "shown"
    verdict = decide([REAL, gain | {"seeds": 1}], METHODS)
    assert verdict.status == "not shown"
    assert "these two classifiers alone" in verdict.summary
    assert "classifier.seeds=3" in verdict.summary


def test_the_method_named_first_decides_and_not_the_best_one():
    results = [
        REAL,
        row("softmax", 0.61, 0.39, difference(0.01, 0.05), difference(-0.01, 0.05)),
        row("dirichlet", 0.70, 0.30, difference(0.1, 0.02), difference(-0.1, 0.02)),
    ]
    verdict = decide(results, METHODS)
    assert verdict.status == "not shown"
    assert "softmax" in verdict.summary
    assert verdict.remarks[0].startswith("Real + dirichlet: shown (macro-F2 +0.100")
    assert decide(results, ("dirichlet", "softmax")).status == "shown"


def test_the_summary_names_macro_f2_then_fnr_then_accuracy_with_intervals():
    change = row("softmax", 0.63, 0.38, difference(0.03, 0.04), difference(-0.02, 0.03))
    change["difference_to_real"]["accuracy"] = difference(0.01, 0.02)
    summary = decide([REAL, change], METHODS).summary
    assert "0.600 to 0.630, a difference of +0.030 (95% interval −0.010 to +0.070" in summary
    assert summary.index("macro-F2") < summary.index("false-negative") < summary.index("Accuracy")


@pytest.mark.parametrize("simpler", ["onehot", "real"])
def test_a_simpler_method_that_reached_more_is_named(simpler):
    worse = row("softmax", 0.58, 0.42, difference(-0.02, 0.05), difference(0.02, 0.05))
    onehot = row("onehot", 0.59, 0.4, difference(-0.01, 0.05), difference(0, 0.05))
    remarks = " ".join(decide([REAL, worse, onehot], METHODS).remarks)
    name = {"onehot": "real + onehot has macro-F2 0.590", "real": "real only has macro-F2 0.600"}
    assert name[simpler] in remarks


def test_no_simpler_method_is_named_when_none_reached_more():
    better = row("softmax", 0.65, 0.35, difference(0.05, 0.06), difference(-0.05, 0.06))
    onehot = row("onehot", 0.62, 0.38, difference(0.02, 0.05), difference(-0.02, 0.05))
    assert not any(
        "simpler" in remark for remark in decide([REAL, better, onehot], METHODS).remarks
    )


def test_without_a_comparison_nothing_is_claimed():
    assert decide([REAL], METHODS).status == "not tested"
    synthetic_only = [row("softmax", 0.6, 0.4, difference(0, 1), difference(0, 1))]
    assert decide(synthetic_only, METHODS).status == "not tested"


def test_a_best_classifier_below_real_only_comes_first_among_the_remarks():
    below = BelowReal(
        classifier="softmax-seed1", macro_f2=0.58, method_macro_f2=0.59, real_macro_f2=0.6
    )
    worse = row("softmax", 0.58, 0.42, difference(-0.02, 0.05), difference(0.02, 0.05))
    for results in ([REAL, worse], [REAL]):
        remark = decide(results, METHODS, below).remarks[0]
        assert remark.startswith("Beware: softmax-seed1 is the best on validation")
        assert "0.580" in remark and "0.600" in remark and "gemix promote" in remark


@pytest.mark.parametrize(("macro_f2", "is_better"), [(0.7, True), (0.6, False)])
def test_the_last_remark_says_how_good_another_sites_teacher_is(macro_f2, is_better):
    ends = {"macro_f2": (macro_f2 - 0.1, macro_f2 + 0.1), "fnr": (0.2, 0.4)}
    teacher = TeacherRates(macro_f2=macro_f2, fnr=0.3, seeds=2, intervals=ends)
    ours = row("softmax", 0.65, 0.35, difference(0.05, 0.06), difference(-0.05, 0.06))
    remark = decide([REAL, ours], METHODS, None, teacher).remarks[-1]
    assert f"macro-F2 {macro_f2:.3f} ({macro_f2 - 0.1:.3f} to {macro_f2 + 0.1:.3f})" in remark
    assert "rate of 0.300 (0.200 to 0.400)" in remark
    assert ("simpler and better" in remark) == is_better


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "p < 0.001"), (0.0042, "p = 0.004"), (0.042, "p = 0.04"), (1.0, "p = 1.00")],
)
def test_p_values_are_not_more_precise_than_known(value, text):
    assert p_value(value) == text
