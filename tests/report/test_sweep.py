"""The section of the report on a sweep."""

from __future__ import annotations

from gemix.io.records import write_record
from gemix.io.results import SWEEP
from gemix.io.storage import Store
from gemix.io.sweep_record import (
    Confirmation,
    ConfirmedCandidate,
    RatesOnTest,
    SweepDifference,
    SweepResults,
    SweepScores,
    SweepTest,
    SweepTrial,
    SweepWinner,
)
from gemix.report.content import gather
from gemix.report.page import render

SOFT = {"ratio": 0.5, "method": "softmax"}


def trial(number, macro_f2, *, feasible=True, name=None, **params) -> SweepTrial:
    return SweepTrial(
        number=number,
        name=name,
        state="complete",
        params=params,
        feasible=feasible,
        scores=SweepScores(macro_f2=macro_f2, fnr=0.9 - macro_f2),
    )


def sweep(**changes) -> SweepResults:
    trials = (
        trial(0, 0.801, name="real only", ratio=0.0),
        trial(
            1,
            0.793,
            name="published default",
            ratio=1.0,
            method="softmax",
            temperature=1.0,
            bias=2.0,
        ),
        trial(2, 0.842, **SOFT | {"temperature": 0.31, "bias": 4.25}),
        trial(3, 0.866, feasible=False, ratio=1.5, method="onehot"),
        trial(5, 0.811, **SOFT | {"label_source": "asked", "recipe": "weight"}),
        trial(6, 0.812, **SOFT | {"label_source": "mixture", "mixture": 0.3, "recipe": "mix"}),
        SweepTrial(number=4, state="pruned", params={"ratio": 2.0}, feasible=False, reason="ASHA"),
    )
    given = {"study": "sweep", "objective": "constrained", "trials": trials, "best": 2}
    return SweepResults(**given | changes)


def confirmation() -> Confirmation:
    def candidate(name, number, searched, fresh, outcome):
        return ConfirmedCandidate(
            name=name,
            trial=number,
            searched=SweepScores(macro_f2=searched, fnr=0.1),
            fresh=SweepScores(macro_f2=fresh, fnr=0.12),
            outcome=outcome,
        )

    return Confirmation(
        candidates=(
            candidate("real only", 0, 0.801, 0.797, "wins"),
            candidate("trial 2", 2, 0.842, 0.799, "no better than <real only>"),
        ),
        winner=SweepWinner(name="real only", trial=0, overfitted=0.0041, settings={}),
        test=SweepTest(
            images=60,
            groups=20,
            openings=2,
            seeds=5,
            results={
                "real": RatesOnTest(macro_f2=0.781, fnr=0.2),
                "trial 2": RatesOnTest(
                    macro_f2=0.792,
                    fnr=0.19,
                    difference_to_real={
                        "macro_f2": SweepDifference(delta=0.011, low=-0.034, high=0.056)
                    },
                ),
            },
        ),
    )


def page_of(finished, config, found: SweepResults) -> str:
    write_record(Store(finished.sweep), SWEEP, found)
    return render(gather(finished, config))


def test_search_and_winner_are_shown(finished, config):
    importance = {"softmax": {"temperature": 0.62, "bias": 0.38}}
    page = page_of(finished, config, sweep(confirmed=confirmation(), importance=importance))
    assert "Which T, b and N?" in page and "7 trials: 6 complete, 1 pruned" in page
    assert "<b>Real only</b> wins on fresh seeds" in page and "by luck, is +0.004" in page
    assert "no better than &lt;real only&gt;" in page
    assert "−0.034 to +0.056" in page and "predicted 2 times" in page
    assert "N 0.5, softmax, T 0.31, b 4.25" in page and "not feasible" not in page
    assert "temperature 62%, bias 38%" in page
    assert "N 0.5, softmax, labels mixture, mixture α 0.3, recipe mix" in page
    for chart in ("history", "ratio-N", "temperature-T", "bias-b", "plane", "false-negative-rate"):
        assert f'id="sweep-{chart}-' in page
    for chart in ("label-sampler", "label-source", "recipe"):  # choices
        assert f'id="sweep-{chart}-' in page
    assert "mathdefault" not in page


def test_a_search_without_a_winner_or_trials(finished, config):
    page = page_of(finished, config, sweep())
    assert "wins on fresh seeds" not in page and "Which T, b and N?" in page
    page = page_of(finished, config, sweep(trials=()))
    assert "0 trials" in page and "sweep-history" not in page


def test_without_a_sweep_there_is_no_section(source):
    assert "Which T, b and N?" not in source
