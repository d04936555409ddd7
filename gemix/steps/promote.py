"""Give a registered classifier the alias `champion` if it has passed the gate, and take it back."""

from __future__ import annotations

import logging

import gemix
from gemix.config import PipelineConfig
from gemix.core.environment import git_commit
from gemix.core.errors import AlreadyFinishedError, DataError
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.promotion.gate import judge
from gemix.promotion.ledger import PROMOTE, ROLLBACK, Decision, JudgedVersion, Ledger
from gemix.steps.promotion.aliases import apply, finish, previous_of
from gemix.steps.promotion.evidence import Contender, Gathered, best_real_only, gather
from gemix.steps.promotion.origin import Evaluated, Origin, Swept
from gemix.tracking import mlflow_run as tracking
from gemix.tracking.champion import CHAMPION, PREVIOUS, RegisteredModel, Version
from gemix.tracking.mlflow_run import Run
from gemix.tracking.model_registry import DATA_DIGEST

log = logging.getLogger("gemix.promote")


def promote(
    config: PipelineConfig,
    workspace: Workspace,
    *,
    version: str | None = None,
    sweep: bool = False,
) -> Decision:
    """Decide whether a registered version becomes the champion, and move the aliases.

    The decision is kept in ``workspace.promotions`` and in MLflow. The test images are predicted
    with the candidate and the champion, which counts as an opening of the test set.

    Args:
        version: the candidate; None for the one that `evaluate` registered last for this work
            directory.
        sweep: the candidate is the winner of the sweep in this work directory, which is registered
            if it is not yet, and `version` is None.

    Returns:
        The decision, whatever it is. One that an earlier command was stopped in is finished.

    Raises:
        DataError: if there is no such version, if the evaluation or the sweep is missing or out of
            date, if the sweep has found nothing better than its default, or if candidate and
            champion cannot be compared.
        NotRegistrableError: for a winner of the sweep that is below chance.
        AlreadyFinishedError: if the version, or another of the same weights and decision, is the
            champion already.
        CheckpointError: if the files of a version are gone or damaged.
        TrackingError: if the registry stays away.
    """
    name, ledger = config.tracking.registered_model, Ledger(Store(workspace.promotions))
    origin: Origin = Swept(workspace) if sweep else Evaluated(workspace)
    with tracking.start_run(config, workspace.workdir, "promote") as run:
        model = RegisteredModel(run.tracking_uri, name)
        number = version or origin.version(model, run)
        finished = finish(model, ledger)
        if finished and (finished.action, finished.candidate.version) == (PROMOTE, number):
            _log_to(run, finished)
            return finished
        wanted = model.version(number)
        if wanted is None:
            raise DataError(
                f"{name} has no version {number}, or it is deleted; name another one with "
                "--version, or run gemix evaluate --overwrite to register one"
            )
        champion, remarks = _champion(model, ledger)
        if champion and champion.number == number:
            raise AlreadyFinishedError(
                f"{name} version {number} is the champion already; train and evaluate another one, "
                "or name one with --version"
            )
        candidate = Contender.registered(model, wanted)
        reference = Contender.registered(model, champion) if champion else best_real_only(origin)
        if champion and candidate.is_same(reference):
            raise AlreadyFinishedError(
                f"{name} version {number} has the weights and the decision of the champion, "
                f"version {champion.number}: there is nothing to decide; train and evaluate "
                "another one"
            )
        found = gather(config, origin, candidate, reference)
        findings = judge(found.evidence, config.promotion.fnr_margin)
        decision = Decision(
            action=PROMOTE,
            model=name,
            candidate=candidate.judged,
            champion=reference.judged if champion else None,
            reference=reference.judged,
            promoted=all(one.passed for one in findings),
            findings=findings,
            figures=found.figures,
            margin=config.promotion.fnr_margin,
            test=found.test,
            sha256=found.sha256,
            remarks=(*remarks, *found.remarks),
            gemix=gemix.__version__,
            commit=git_commit(),
        )
        _write(run, model, wanted, ledger, decision, found)
        apply(model, decision)
    return decision


def rollback(config: PipelineConfig, workspace: Workspace) -> Decision:
    """Give the alias back to the champion before this one, which the registry names.

    Returns:
        The decision. One that an earlier command was stopped in is finished.

    Raises:
        DataError: if there is no previous champion.
        CheckpointError: if its files are gone or damaged.
        TrackingError: if the registry stays away.
    """
    name, ledger = config.tracking.registered_model, Ledger(Store(workspace.promotions))
    with tracking.start_run(config, workspace.workdir, "promote") as run:
        model = RegisteredModel(run.tracking_uri, name)
        finished = finish(model, ledger)
        if finished and finished.action == ROLLBACK:
            _log_to(run, finished)
            return finished
        aliases = model.aliases()
        number = aliases.get(CHAMPION)
        champion = model.version(number) if number else None
        before = (number and previous_of(model, number)) or aliases.get(PREVIOUS)
        previous = model.version(before) if before and before != number else None
        if previous is None:
            raise DataError(
                f"{name}: there is no previous champion to go back to"
                + (f"; version {number} replaced none that is still there" if number else "")
                + ". To name another champion, run gemix promote --version N"
            )
        decision = Decision(
            action=ROLLBACK,
            model=name,
            candidate=Contender.registered(model, previous).judged,
            champion=champion and _by_tags(champion),
            promoted=True,
            gemix=gemix.__version__,
            commit=git_commit(),
        )
        ledger.append(decision)
        _log_to(run, decision)
        apply(model, decision)
    return decision


def _champion(model: RegisteredModel, ledger: Ledger) -> tuple[Version | None, list[str]]:
    """Return the champion, None before the first one, and what is remarkable about it.

    Raises:
        DataError: if it is gone, and there was one before it.
    """
    aliases = model.aliases()
    if CHAMPION in aliases:
        return model.version(aliases[CHAMPION]), []
    if PREVIOUS in aliases:
        raise DataError(
            f"{model.name}: the champion is gone, deleted or without its alias; gemix promote "
            f"--rollback makes version {aliases[PREVIOUS]} the champion, which was it before"
        )
    last = ledger.last(model.name)
    known = last and (last.candidate if last.promoted else last.champion)
    if not known:
        return None, []
    return None, [
        f"The ledger has version {known.version} as the champion, which the registry no longer "
        "names; this was decided as if there had been none."
    ]


def _by_tags(version: Version) -> JudgedVersion:
    name = f"classifier {version.tags.get('method', 'of an unknown method')}"
    return JudgedVersion(
        version=version.number,
        name=f"{name}, seed {version.tags.get('seed', 'unknown')}",
        data_digest=version.tags.get(DATA_DIGEST),
    )


def _write(
    run: Run,
    model: RegisteredModel,
    version: Version,
    ledger: Ledger,
    decision: Decision,
    found: Gathered,
) -> None:
    """Write the card, then the decision, which is what counts from then on."""
    for name, data in found.card.items():
        (ledger.store / decision.id).write_bytes(name, data)
        run.log_bytes(data, name)
    model.attach(version, found.card, found.summary)
    ledger.append(decision)
    _log_to(run, decision)


def _log_to(run: Run, decision: Decision) -> None:
    run.log_bytes(decision.to_bytes(), "decision.json")
    run.set_tags({"gemix.decision": decision.id, "gemix.promotion": decision.verdict})
    run.log_metrics({f"candidate/{one.rate}": one.candidate for one in decision.figures})
    run.log_metrics({f"reference/{one.rate}": one.reference for one in decision.figures})
