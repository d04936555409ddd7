"""Equivalent real patients, and the share of a ceiling."""

from __future__ import annotations

import pytest

from gemix.comparison.worth import LearningCurve, format_patients
from gemix.steps.compare.worth import worth_of


def test_patients_are_read_from_lines_in_their_logarithm():
    curve = LearningCurve([100, 10, 1000], [0.7, 0.5, 0.8])
    assert curve.patients_for(0.5) == pytest.approx(10)
    assert curve.patients_for(0.6) == pytest.approx(10**1.5)
    assert curve.patients_for(0.75) == pytest.approx(10**2.5)
    assert curve.patients_for(0.49) == pytest.approx(10)
    assert curve.patients_for(0.81) == pytest.approx(1000)


def test_a_curve_never_falls():
    curve = LearningCurve([10, 20, 40], [0.6, 0.5, 0.8])
    assert curve.patients_for(0.6) == pytest.approx(10)
    assert curve.patients_for(0.7) == pytest.approx(20 * 2**0.5)


def test_worth_is_what_scanning_more_patients_would_gain():
    worth = LearningCurve([10, 100], [0.5, 0.7]).worth(10, 0.6, 0.4, 0.75)
    assert worth.patients == pytest.approx(10**1.5 - 10)
    assert (worth.low, worth.high) == pytest.approx((0, 90))
    said = [format_patients(v, worth) for v in (worth.patients, worth.low, worth.high)]
    assert said == ["+22", "≤ 0", "≥ +90"]


def joint(gain: float) -> dict[str, float]:
    return {"joint_low": gain - 0.03, "joint_high": gain + 0.03}


def block(patients: int, real: float, gains: dict[str, float]) -> dict:
    methods = [{"method": "real", "failure": None, "rates": {"macro_f2": real}, "differences": {}}]
    methods += [
        {
            "method": name,
            "failure": None,
            "finding": "x",
            "rates": {"macro_f2": real + gain},
            "differences": {
                "macro_f2": {"delta": gain, "low": gain - 0.02, "high": gain + 0.02} | joint(gain)
            },
        }
        for name, gain in gains.items()
    ]
    return {
        "model": "m",
        "fraction": patients / 100,
        "patients": patients,
        "failure": None,
        "methods": methods,
    }


def test_every_method_of_every_block_has_its_worth():
    gains = {"softmax": 0.05, "held-back": 0.1}
    rows = worth_of([block(10, 0.5, gains), block(40, 0.7, gains)], "real")
    assert [(row["fraction"], row["method"]) for row in rows] == [
        *((0.1, "softmax"), (0.1, "held-back"), (0.4, "softmax"), (0.4, "held-back")),
    ]
    first = rows[0]
    assert first["of_ceiling"] == pytest.approx(0.5) and "of_ceiling" not in rows[1]
    assert first["equivalent_patients"]["patients"] == pytest.approx(10 * 4**0.25 - 10)
    above = rows[2]["equivalent_patients"]
    assert above["patients"] == above["most"] == pytest.approx(0)


def test_a_ceiling_that_is_not_shown_has_no_shares():
    rows = worth_of([block(10, 0.5, {"softmax": 0.02, "held-back": 0.02})], "real")
    assert rows == []


def test_one_fraction_has_no_curve_and_no_ceiling_no_share():
    assert worth_of([block(10, 0.5, {"softmax": 0.05})], "real") == []
