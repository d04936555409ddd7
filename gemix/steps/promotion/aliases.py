"""Move the aliases of a registered model as a decision of the ledger says.

The decision is written first. Every request is idempotent, and the last one marks the version with
the decision's id, so that a command that was stopped between two of them is finished by the next
one, whatever that is for. The former champion is named before the new one: at every moment there
is a champion, and ``gemix.replaced`` of a champion names the version before it.
"""

from __future__ import annotations

import logging

from gemix.core.errors import DataError
from gemix.promotion.ledger import PROMOTE, Decision, Ledger
from gemix.tracking.champion import CHALLENGER, CHAMPION, PREVIOUS, RegisteredModel

log = logging.getLogger("gemix.promote")

DECISION, REPLACED, STATE = "gemix.decision", "gemix.replaced", "gemix.promotion"  # tags


def apply(model: RegisteredModel, decision: Decision) -> None:
    """Move aliases and set tags; may be repeated.

    Raises:
        DataError: if another version has become champion since it was decided.
    """
    number, former = decision.candidate.version, decision.champion and decision.champion.version
    if not decision.promoted:
        model.give(CHALLENGER, number)
        model.tag(number, {DECISION: decision.id, STATE: "refused"})
        return
    aliases = model.aliases()
    if (found := aliases.get(CHAMPION)) not in (former, number):
        raise DataError(
            f"{model.name}: version {found} has become the champion since the decision, which "
            f"compared with version {former}; run gemix promote again"
        )
    if decision.action == PROMOTE:
        model.tag(number, {REPLACED: former or ""})
        if former is not None:
            model.give(PREVIOUS, former)
        model.give(CHAMPION, number)
    else:
        model.give(CHAMPION, number)
        before = previous_of(model, number)
        if before is None:
            model.take(PREVIOUS)
        else:
            model.give(PREVIOUS, before)
        if former is not None:
            model.tag(former, {STATE: "rolled back"})
    if aliases.get(CHALLENGER) == number:
        model.take(CHALLENGER)
    model.tag(number, {DECISION: decision.id, STATE: "champion"})


def finish(model: RegisteredModel, ledger: Ledger) -> Decision | None:
    """Move the aliases of the ledger's last decision, if a command was stopped before they were.

    Returns:
        The decision, if there was something to finish.
    """
    last = ledger.last(model.name)
    if last is None or not last.promoted:
        return None
    version = model.version(last.candidate.version)
    if version is not None and version.tags.get(DECISION) == last.id:
        return None
    former = last.champion and last.champion.version
    if version is None or model.aliases().get(CHAMPION) not in (former, version.number):
        log.warning(
            "%s: the decision %s on version %s was never carried out, and the registry has changed "
            "since; it is left alone",
            *(model.name, last.id, last.candidate.version),
        )
        return None
    log.info("%s, as decided on %s; aliases are moved now", last.verdict, last.time)
    apply(model, last)
    return last


def previous_of(model: RegisteredModel, number: str) -> str | None:
    """Return the version that a champion has replaced, if it is still there."""
    version = model.version(number)
    replaced = version.tags.get(REPLACED) if version else None
    return replaced if replaced and model.version(replaced) else None
