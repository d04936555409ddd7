"""Scores of trials that are a function of their parameters, and cost nothing."""

from __future__ import annotations

from gemix.sweep.objective import Scores
from gemix.sweep.study import Proposal, SweepStudy


def scores_of(proposal: Proposal, macro_f2: float | None = None, fnr: float = 0.2) -> list[Scores]:
    """Two seeds' scores, a function of the parameters."""
    ratio, bias = proposal.params["ratio"], proposal.params.get("bias", 0.0)
    value = 0.8 + 0.01 * ratio * bias if macro_f2 is None else macro_f2
    return [Scores(macro_f2=value, fnr=fnr), Scores(macro_f2=value + 0.02, fnr=fnr)]


def run_all(study: SweepStudy) -> list[Proposal]:
    """Run every trial that is left."""
    done = []
    while (proposal := study.propose()) is not None:
        study.complete(proposal.number, scores_of(proposal))
        done.append(proposal)
    return done
