"""How much of what trials are worth each parameter decides."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

FEWEST_TRIALS = 6  # of which an importance says something


def importances(trials: Sequence[FrozenTrial]) -> dict[str, dict[str, float]]:
    """Return the importance of each parameter for macro-F2, 0 to 1, by label sampler.

    PED-ANOVA (Watanabe et al., IJCAI 2023) compares the distribution of a parameter among the best
    trials with that among all. It needs trials of the same parameters, as those of a sampler are.
    Samplers of too few complete trials are left out, and parameters of a single value.
    """
    complete = [
        trial for trial in trials if trial.state == TrialState.COMPLETE and "method" in trial.params
    ]
    found = {}
    for method in sorted({trial.params["method"] for trial in complete}):
        own = [trial for trial in complete if trial.params["method"] == method]
        names = set.intersection(*(set(trial.params) for trial in own)) - {"method"}
        varied = sorted(n for n in names if len({trial.params[n] for trial in own}) > 1)
        if len(own) < FEWEST_TRIALS or not varied:
            continue
        study = optuna.create_study(direction="maximize")
        study.add_trials(
            [
                optuna.trial.create_trial(
                    value=trial.values[0],
                    params={name: trial.params[name] for name in varied},
                    distributions={name: trial.distributions[name] for name in varied},
                )
                for trial in own
            ]
        )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=0.3)
        found[method] = get_param_importances(study, evaluator=evaluator)
    return found
