"""The card of a classifier as Markdown.

The sections follow "Model Cards for Model Reporting" (Mitchell et al., 2019).
"""

from __future__ import annotations

import dataclasses

from gemix.data.dataset_card.description import plural
from gemix.data.dataset_card.markdown import bullets, escape, section, table
from gemix.data.shards.manifest import SPLITS
from gemix.promotion.model_card.record import CARD_TEXT, ModelCard, Rate, SyntheticRow

DESCRIPTION_CHARACTERS = 5000  # that MLflow's databases hold
_NAMES = {
    "macro_f2": "macro-F2",
    "fnr": "false-negative rate (macro)",
    "missed_disease_rate": "missed-disease rate",
    "macro_auroc": "AUROC (macro)",
    "disease_auroc": "AUROC of disease",
    "brier": "Brier score (0 to 2, lower is better)",
    "macro_f1": "macro-F1",
    "macro_precision": "precision (macro)",
    "accuracy": "accuracy",
}
_NONE = "–"


def card_text(card: ModelCard) -> str:
    """Write the card in GitHub's Markdown."""
    sections = [
        f"# Model card: {escape(card.model)} version {escape(card.version)}",
        _summary(card),
        section("Intended use", escape(card.written.intended_use) or _open("intended_use")),
        section("Limits", _limits(card)),
        section("Licence and contact", _licence(card)),
        section("Results", _results(card)),
        section("Calibration and decision", _calibration(card)),
        section("Data", _data(card)),
        section("Synthetic images", _synthetic(card)),
        section("Training", _training(card)),
        section("CLAIM 2024", _claim(card)),
    ]
    return "\n\n".join(sections) + "\n"


def description(card: ModelCard) -> str:
    """Return the first sections, cut to the length that a description in MLflow may have."""
    text = "\n\n".join(
        (
            _summary(card),
            section("Intended use", escape(card.written.intended_use) or _open("intended_use")),
            section("Results", _results(card)),
            section("Limits", _limits(card)),
        )
    )
    end = f"\n\nThe whole card is the artifact {CARD_TEXT} of the model."
    return text[: DESCRIPTION_CHARACTERS - len(end)] + end


def _open(name: str) -> str:
    return f"**Not written:** promotion.card.{escape(name)}."


def _summary(card: ModelCard) -> str:
    how = {"real": "real images alone"}.get(card.method)
    state = f"**Incomplete:** it lacks {escape(', '.join(card.lacks))}.\n\n" if card.lacks else ""
    return (
        f"{state}A network that gives an image the probabilities of {len(card.classes)} classes "
        f"({escape(', '.join(row.name for row in card.classes))}): {escape(card.architecture)}, "
        f"trained on {how or f'images of the method {escape(card.method)}'}.\n\n"
        f"Checksum of the weights: `{card.checksum}`. Made by gemix {escape(card.gemix)}."
    )


def _limits(card: ModelCard) -> str:
    person = escape(card.written.limits) or _open("limits")
    return f"{person}\n\n{bullets((*card.limits, *card.data.unknown))}"


def _licence(card: ModelCard) -> str:
    rows = [
        f"- {title}: {escape(getattr(card.written, name)) or _open(name)}"
        for title, name in (("Licence", "licence"), ("Contact", "contact"))
    ]
    return "\n".join(rows)


def _results(card: ModelCard) -> str:
    test = card.test
    healthy = f" The healthy class is {escape(test.healthy_class)}." if test.healthy_class else ""
    note = (
        f"On {plural(test.images, 'test image')} of {test.groups:,} {card.data.group_word}, which "
        f"were predicted {plural(test.openings, 'time')} by now; 95% intervals over "
        f"{card.data.group_word}, of this one trained network.{healthy}"
    )
    rates = [(_NAMES[name], _text(rate)) for name, rate in card.rates.items()]
    by_class = [
        (
            row.name,
            f"{row.images:,}",
            f"{row.groups:,}",
            _missed(row.recall),
            _text(row.recall),
            _text(row.precision),
        )
        for row in card.classes
    ]
    head = ("Class", "Images", card.data.group_word, "False-negative rate", "Recall", "Precision")
    names = [row.name for row in card.classes]
    confusion = [
        (name, *(f"{count:,}" for count in counts))
        for name, counts in zip(names, card.confusion, strict=True)
    ]
    return "\n\n".join(
        (
            note,
            table(("Rate", "Value"), rates, "lr"),
            table(head, by_class, "lrrrrr"),
            "Confusion matrix, rows are the truth:",
            table(("", *names), confusion, "l" + "r" * len(names)),
        )
    )


def _calibration(card: ModelCard) -> str:
    return (
        f"Expected calibration error {card.ece:.3f} (15 bins, Guo et al. 2017); the Brier score is "
        f"above.\n\nDecision: {escape(str(card.decision))}."
    )


def _data(card: ModelCard) -> str:
    data = card.data
    rows = []
    for name, images in data.images.items():
        groups = data.groups.get(name) if data.groups else None
        cells = [f"{count:,}" for count in images]
        if groups:
            cells = [f"{cell} ({count:,})" for cell, count in zip(cells, groups, strict=True)]
        rows.append((name, *cells))
    note = f"; in brackets {data.group_word}" if data.groups else ""
    parts = [
        f"{escape(data.source)}; content digest `{data.digest}`, test split "
        f"`{card.test.digest}`. Images by class and split{note}:",
        table(("Class", *SPLITS, "all"), rows, "lrrrr"),
        escape(data.grouping or ""),
        _titled(
            "From the source to the set:",
            table(
                ("Step", "Number"), [(name, f"{n:,}") for name, n in data.selection.items()], "lr"
            ),
        ),
        _titled("Preparation:", table(("Setting", "Value"), list(data.settings.items()), "ll")),
    ]
    return "\n\n".join(filter(None, parts))


def _titled(title: str, text: str) -> str:
    return f"{title}\n\n{text}" if text else ""


def _synthetic(card: ModelCard) -> str:
    if not card.synthetic:
        return "None: it was trained on real images alone."
    return "\n\n".join(map(_set, card.synthetic))


def _set(row: SyntheticRow) -> str:
    labels = row.synthesis.get("labels", "asked")
    rows = [
        ("images", f"{row.images:,}"),
        ("content digest", row.digest),
        ("generator", row.generator or "not recorded"),
        ("labels", str(labels)),
        ("privacy audit of this set", row.verdict or "none"),
    ]
    text = table((row.name, ""), rows, "ll")
    return f"{text}\n\n{bullets(row.reasons)}" if row.reasons else text


def _training(card: ModelCard) -> str:
    rows = [(name, str(value)) for name, value in card.training.items()]
    rows += [
        (f"validation, by the most probable class: {name}", f"{value:.4g}")
        for name, value in card.validation.items()
    ]
    rows.append(("digest of the training images", card.training_digest))
    return table(("Setting", "Value"), rows, "ll")


def _claim(card: ModelCard) -> str:
    rows = [
        (str(item.number), item.title, item.answer or _NONE, item.open or _NONE)
        for item in card.claim
    ]
    note = (
        "Items of the Checklist for Artificial Intelligence in Medical Imaging, 2024 update, in "
        "our words, by numbers to be compared with the published list; the last column is people's."
    )
    return f"{note}\n\n{table(('Item', 'Subject', 'This run', 'Open'), rows, 'rlll')}"


def _missed(recall: Rate | None) -> str:
    if recall is None:
        return _NONE
    return _text(
        dataclasses.replace(
            recall, value=1 - recall.value, low=1 - recall.high, high=1 - recall.low
        )
    )


def _text(rate: Rate | None) -> str:
    return _NONE if rate is None else f"{rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f})"
