"""Move the aliases of a registered model as a decision of the ledger says.

The decision is written first. Every request is idempotent, and the first and the last one give the
version a tag of this decision, ``gemix.decision.<id>``, which is `begun` and then `done`. A command
that was stopped between two of them, of a promotion, a refusal or a rollback, is finished by the
next one of its work directory, whatever that is for. The tag is of this decision alone, but for one
case: a decision that takes a champion's place sets what has made it champion to `done`. So nothing
that was carried out is carried out again, whoever has decided since. The former champion is named
before the new one: at every moment there is a champion, and ``gemix.replaced`` of a champion names
the version before it.
"""

from __future__ import annotations

import logging

from gemix.core.errors import DataError
from gemix.promotion.ledger import PROMOTE, Decision, Ledger
from gemix.tracking.champion import CHALLENGER, CHAMPION, PREVIOUS, RegisteredModel, Version

log = logging.getLogger("gemix.promote")

DECISION, REPLACED, STATE = "gemix.decision.", "gemix.replaced", "gemix.promotion"  # tags
_BEGUN, _DONE = "begun", "done"


def apply(model: RegisteredModel, decision: Decision) -> None:
    """Move aliases and set tags; may be repeated.

    Raises:
        DataError: if another version has become champion since it was decided.
    """
    number, former = decision.candidate.version, decision.champion and decision.champion.version
    done = {f"{DECISION}{decision.id}": _DONE}
    if not decision.promoted:
        model.give(CHALLENGER, number)
        model.tag(number, {STATE: "refused"} | done)
        return
    aliases = model.aliases()
    if (found := aliases.get(CHAMPION)) not in (former, number):
        raise DataError(
            f"{model.name}: version {found} has become the champion since the decision, which "
            f"compared with version {former}; run gemix promote again"
        )
    before = model.version(former) if former is not None else None
    if before is None:
        former = None  # deleted since
    elif found == former:
        model.tag(former, {tag: _DONE for tag in _begun(before)})
    model.tag(number, {f"{DECISION}{decision.id}": _BEGUN})
    if decision.action == PROMOTE:
        model.tag(number, {REPLACED: former or ""})
        if former is not None:
            model.give(PREVIOUS, former)
        model.give(CHAMPION, number)
    else:
        model.give(CHAMPION, number)
        previous = previous_of(model, number)
        if previous is None:
            model.take(PREVIOUS)
        else:
            model.give(PREVIOUS, previous)
        if former is not None:
            model.tag(former, {STATE: "rolled back"})
    if aliases.get(CHALLENGER) == number:
        model.take(CHALLENGER)
    model.tag(number, {STATE: "champion"} | done)


def finish(model: RegisteredModel, ledger: Ledger) -> Decision | None:
    """Move the aliases of the ledger's last decision, if a command was stopped before they were.

    A decision is left alone if another version has become champion since.

    Returns:
        The decision, if there was something to finish.
    """
    last = ledger.last(model.name)
    if last is None:
        return None
    version = model.version(last.candidate.version)
    if version is not None and version.tags.get(f"{DECISION}{last.id}") == _DONE:
        return None
    expected = {last.champion and last.champion.version}
    if last.promoted:
        expected.add(last.candidate.version)
    if version is None or model.aliases().get(CHAMPION) not in expected:
        log.warning(
            "%s: the decision %s on version %s was never carried out, and the registry has changed "
            "since; it is left alone",
            *(model.name, last.id, last.candidate.version),
        )
        return None
    log.info("%s, as decided on %s; aliases are moved now", last.verdict, last.time)
    apply(model, last)
    return last


def _begun(version: Version) -> list[str]:
    """Return the tags of decisions that were not carried out to the end."""
    return [
        tag for tag, value in version.tags.items() if tag.startswith(DECISION) and value == _BEGUN
    ]


def previous_of(model: RegisteredModel, number: str) -> str | None:
    """Return the version that a champion has replaced, if it is still there."""
    version = model.version(number)
    replaced = version.tags.get(REPLACED) if version else None
    return replaced if replaced and model.version(replaced) else None
