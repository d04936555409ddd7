"""What a synthetic set is for, and its limits, in sentences."""

from __future__ import annotations

from gemix.data.dataset_card.description import plural
from gemix.data.leakage.provenance import PROVENANCE
from gemix.synthesis.set_card.record import SetCard

INTENDED_USE = (
    "Research: added to real training images of the same classes and preparation, to train "
    "classifiers that are then tested on real images of other patients.",
    "Teaching, and tests of software that reads such sets.",
    "Not for diagnosis or treatment, and not to choose or test a classifier: how it does on "
    "synthetic images says little about patients.",
    "Not for how frequent anything is: the classes are as frequent as the sampler made them.",
)
_SLICES = "Slices, not volumes: no two images show the same patient."


def limits(card: SetCard) -> tuple[str, ...]:
    """Return the limits of a set, as far as its card tells them, the gravest first."""
    return tuple(
        filter(None, (_audit(card), _fidelity(card), _labels(card), *_training_data(card), _SLICES))
    )


def _audit(card: SetCard) -> str | None:
    if card.audit is None:
        return (
            "Not audited: nobody has looked whether the images give away whom the generator "
            "learned from."
        )
    if card.audit.verdict != "passed":
        return f"The privacy audit did not pass: {card.audit.verdict}."
    return None


def _fidelity(card: SetCard) -> str | None:
    if not card.fidelity:
        return "Nobody has looked whether the images show what their labels say."
    seen = card.fidelity[0]
    if None in (seen.agreement.value, seen.ceiling.value):
        return None
    if seen.agreement.high < min(seen.ceiling.low, seen.expected_agreement):
        return (
            f"{seen.agreement.value:.0%} of the images show the class most asked for; the teacher "
            f"is right on {seen.ceiling.value:.0%} of real validation images."
        )
    return None


def _labels(card: SetCard) -> str | None:
    if card.synthesis.get("labels", "asked") == "asked":
        return "The labels are those asked for, whatever an image shows."
    return (
        "Labels that a teacher gave repeat its errors: where it takes one disease for another, so "
        "does the set."
    )


def _training_data(card: SetCard) -> list[str]:
    found = card.training_data
    sentences = []
    if found.is_drawn:
        sentences.append(
            "The generator learned from drawn images, no scans of people: no proof of anything "
            "about patients."
        )
    if found.unknown:
        sentences.append(
            f"{plural(found.unknown, 'training set')} of the generator or the teacher not on "
            "record: whom they learned from is not fully known."
        )
    if found.groups:
        sentences.append(
            f"Learned from images of {plural(found.groups, 'patient')} (or groups that stand for "
            "them): nothing rarer than what these few show can be in the set."
        )
    if found.is_withheld:
        sentences.append(
            "The record of these images stays with their owner: nobody else can tell whether a "
            "test set shares patients with them."
        )
    elif found.images:
        sentences.append(
            f"{PROVENANCE}, which goes with the set, holds patient keys and thumbnails of 16 × 16 "
            "pixels of the training images: hand it on to those alone who may see them."
        )
    return sentences
