"""The layouts of the paper's tables."""

from __future__ import annotations

from gemix.comparison.paper_layout import RatedMethod, classifier_title, table_1, table_2


def rated(classifier: str, method: str, accuracy: float) -> RatedMethod:
    rates = {"accuracy": accuracy, "macro_f1": 0.5, "macro_precision": 0.4, "macro_recall": None}
    return RatedMethod(classifier=classifier, method=method, rates=rates)


ROWS = [
    rated("a", "cgan", 0.7),
    rated("a", "softmax", 0.8),
    rated("b", "cgan", 0.6),
    rated("b", "softmax", 0.65),
    rated("c", "softmax", 0.9),  # its baseline failed
]


def test_table_1_has_two_methods_a_row():
    found = table_1(ROWS, "cgan")
    assert found.header[2:7] == (
        *("cgan: accuracy", "cgan: macro-F1", "cgan: precision", "cgan: recall"),
        "method: accuracy",
    )
    assert found.rows == (
        ("a", "softmax", "0.700", "0.500", "0.400", "–", "0.800", "0.500", "0.400", "–"),
        ("b", "softmax", "0.600", "0.500", "0.400", "–", "0.650", "0.500", "0.400", "–"),
    )


def test_table_2_has_one_method_a_row():
    found = table_2(ROWS)
    assert found.header[2:] == ("accuracy", "macro-F1", "precision", "recall", "F2", "FNR")
    assert [row[:3] for row in found.rows[3:]] == [
        ("b", "softmax", "0.650"),
        ("c", "softmax", "0.900"),
    ]
    assert found.rows[0][-2:] == ("–", "–")


def test_a_share_of_the_patients_is_another_classifier():
    assert (classifier_title("r", 1.0), classifier_title("r", 0.25)) == ("r", "r, 25%")
