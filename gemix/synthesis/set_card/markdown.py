"""The card of a synthetic set as Markdown.

The sections follow "Model Cards for Model Reporting" (Mitchell et al., 2019) and "Datasheets for
Datasets" (Gebru et al., 2021) as far as a program can answer their questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemix.core.config_schema import field_docs
from gemix.data.dataset_card.description import plural
from gemix.data.dataset_card.markdown import bullets, escape, section, table
from gemix.evaluation.image_quality.registry import metric_outputs
from gemix.evaluation.label_fidelity.measure import Proportion
from gemix.labels import LabelConfig
from gemix.labels.registry import SAMPLERS
from gemix.synthesis.config import SynthesisConfig
from gemix.synthesis.curation.record import Curation
from gemix.synthesis.set_card.record import SYNTHETIC, ImageComparison, SetCard

_RATES = {"macro_f2": "macro-F2", "fnr": "false-negative rate", "accuracy": "accuracy"}
_NOT_COMPUTED = "–"


def card_text(card: SetCard) -> str:
    """Write the card in GitHub's Markdown."""
    curated = [section("Curation", _curation(card.curation))] if card.curation else []
    sections = [
        f"# Synthetic images: {escape(card.method)}{', curated' if curated else ''}",
        _summary(card),
        section("Intended use", bullets(card.intended_use)),
        section("Limits", bullets(card.limits)),
        section("Privacy", _audit(card)),
        section("Generator", _generator(card)),
        section("Labels", _labels(card)),
        *curated,
        section("Do the images show what was asked for?", _fidelity(card)),
        section("How near they are to real images", _comparisons(card)),
        section("Trained on synthetic, tested on real", _transfer(card)),
    ]
    return "\n\n".join(sections) + "\n"


def proportion(share: Proportion) -> str:
    """Format a share with its interval, in per cent."""
    if share.value is None:
        return _NOT_COMPUTED
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def compared(comparison: ImageComparison) -> str:
    """Return what is compared with what, in words."""
    names = {"train": "real training images", "val": "real validation images"}
    first = names.get(comparison.of, "the set")
    return f"{first} against {names[comparison.against]}"


def metric_text(comparison: ImageComparison, name: str, format_: str, error: str | None) -> str:
    """Format a metric with its standard error; a dash where it could not be computed."""
    value = comparison.metrics.get(name)
    if value is None:
        return _NOT_COMPUTED
    deviation = comparison.metrics.get(error) if error else None
    text = f"{value:{format_}}" + (f" ± {deviation:.2g}" if deviation is not None else "")
    return text.replace("-", "−")


def _summary(card: SetCard) -> str:
    size, depth = card.resolution, "grey" if card.channels == 1 else "three channels"
    return (
        f"{plural(card.images, 'image')} of {size} × {size} pixels ({depth}, 8 bits a channel) in "
        f"{len(card.classes)} classes, drawn by a generator.\n\n"
        f"Content digest: `{card.digest}`"
    )


def _curation(curation: Curation) -> str:
    """Return what was left out, by rule and by class."""
    rules = [
        [count.rule, count.meaning, str(count.removed), str(count.alone)]
        for count in curation.rules
    ]
    kept = ", ".join(
        f"{escape(name)} {one.kept} of {one.before}" for name, one in curation.by_class.items()
    )
    return (
        f"{curation.kept} of {plural(curation.images, 'image')} were kept; by the class most asked "
        f"for {kept}. Taken from the set `{curation.parent}`.\n\n"
        + table(["Rule", "Removes", "Removed", "By itself"], rules, "llrr")
    )


def _audit(card: SetCard) -> str:
    if card.audit is None:
        return "Not audited: run `gemix audit`."
    return f"Audit: **{escape(card.audit.verdict)}**.\n\n{bullets(card.audit.reasons)}"


def _generator(card: SetCard) -> str:
    rows = [("checksum of its weights", card.generator or "not recorded")]
    if card.generator_kimg is not None:
        rows.append(("training", f"{card.generator_kimg:g} kimg"))
    if card.precision is not None:
        rows.append(("precision of the images", card.precision))
    data = card.training_data
    rows += [
        ("source of its training images", data.source or "not at hand"),
        ("training images on record", f"{data.images:,}"),
        ("their patients or groups", f"{data.groups:,}"),
        *(("digest of the training images", digest) for digest in data.digests),
    ]
    if data.unknown:
        rows.append(("training sets that are not on record", f"{data.unknown:,}"))
    note = "Its training images include those of the teacher, where one gave labels.\n\n"
    return note + table(("Generator", ""), rows, align="ll")


def _labels(card: SetCard) -> str:
    drawn = any(of.drawn is not None for of in card.classes)
    head = ("Class", "Images", *(("Drawn when asked for",) if drawn else ()))
    rows = []
    for of in card.classes:
        last = (_NOT_COMPUTED if of.drawn is None else f"{of.drawn:,}",) if drawn else ()
        rows.append((of.name, f"{of.images:,}", *last))
    counts = table(head, rows, align="lrr"[: len(head)])
    note = "Images are counted by the largest weight of their label; a label has a weight a class."
    rows = [*_sampler_settings(card), *_synthesis_settings(card.synthesis)]
    return f"{note}\n\n{counts}\n\n{table(('Setting', 'Value', 'Meaning'), rows, align='lll')}"


def _sampler_settings(card: SetCard) -> list[tuple[str, str, str]]:
    """Return the settings of the set's own sampler: their documentation names others first."""
    rows = []
    for doc in field_docs(LabelConfig):
        value = card.labels.get(doc.name)
        of, colon, meaning = doc.doc.partition(": ")
        samplers = of.split(", ")
        if not colon or not SAMPLERS.keys() >= set(samplers):
            samplers, meaning = [card.method], doc.doc
        if value is not None and card.method in samplers:
            rows.append((f"labels.{doc.name}", str(value), meaning))
    return rows


def _synthesis_settings(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the settings that images and their labels depend on."""
    names = ["truncation_psi", "noise_mode", "seed", "labels", "accept"]
    names += ["mixture"] if settings.get("labels") == "mixture" else []
    names += ["min_seen", "attempts"] if settings.get("accept") == "agreeing" else []
    return [
        (f"synthesis.{doc.name}", str(settings[doc.name]), doc.doc)
        for doc in field_docs(SynthesisConfig)
        if doc.name in names and settings.get(doc.name) is not None
    ]


def _fidelity(card: SetCard) -> str:
    if not card.fidelity:
        return "Not measured: run `gemix train-teacher`, then `gemix synthesize --overwrite`."
    rows = [
        (
            seen.name,
            proportion(seen.agreement),
            f"{seen.expected_agreement:.1%}",
            f"{seen.calibration_error:.3f}",
            proportion(seen.ceiling),
        )
        for seen in card.fidelity
    ]
    head = ("Teacher", "Agreement", "If calibrated", "Calibration error", "Ceiling")
    by_class = [(name, proportion(of)) for name, of in card.fidelity[0].by_class.items()]
    return (
        "Agreement: share of images in which a classifier of real images, the teacher, sees most "
        "of the class most asked for, with 95% intervals. If calibrated: the share if every image "
        "showed its classes as often as asked. Calibration error: mean distance between weights "
        "asked and seen. Ceiling: share of real validation images on which the teacher is right. "
        f"The first teacher gave labels, if any did.\n\n{table(head, rows, align='lllrl')}\n\n"
        + table(("Class asked for", "Agreement"), by_class, align="ll")
    )


def _comparisons(card: SetCard) -> str:
    if not card.comparisons:
        return "Not measured: run `gemix card --overwrite` with metrics.images above 0."
    rows = [
        (
            f"{output.label} {'↑' if output.higher_is_better else '↓'}",
            *(
                metric_text(one, output.name, output.format, output.error)
                for one in card.comparisons
            ),
        )
        for output in metric_outputs()
    ]
    counts = [f"{one.images:,} against {one.real_images:,}" for one in card.comparisons]
    rows.append(("images", *counts))
    head = ("Metric", *(compared(one) for one in card.comparisons))
    problems = [f"{compared(one)}: {one.problem}" for one in card.comparisons if one.problem]
    reference = any(one.of != SYNTHETIC for one in card.comparisons)
    note = (
        f"Features of {escape(card.comparisons[0].extractor)}; values of other extractors and "
        "numbers of images cannot be compared with these."
    )
    if reference:
        note += (
            " The last column is what other patients of the same source reach: a set far nearer to "
            "the training images than that may repeat them."
        )
    text = f"{note}\n\n{table(head, rows, align='l' + 'r' * len(counts))}"
    digests = {one.against: one.digest for one in card.comparisons}
    text += "\n\n" + "\n".join(f"- digest of {k}: `{v}`" for k, v in digests.items())
    return f"{text}\n{bullets(problems)}" if problems else text


def _transfer(card: SetCard) -> str:
    found = card.transfer
    if found is None:
        return (
            "Not measured: run `gemix train-classifier --synthetic-only`, `gemix evaluate` and "
            "`gemix card --overwrite`."
        )
    rows = []
    for one in found.rates:
        values = [_NOT_COMPUTED if v is None else f"{v:.3f}" for v in (one.real, one.synthetic)]
        change = _NOT_COMPUTED
        if one.difference is not None:
            d = one.difference
            change = f"{d.delta:+.3f} ({d.low:+.3f} to {d.high:+.3f})".replace("-", "−")
        rows.append((_RATES.get(one.rate, one.rate), *values, change))
    head = ("Rate", "real on real", "synthetic on real", "difference, 95% interval")
    tested = "real test images" if found.images is None else f"{found.images:,} real test images"
    return (
        f"Classifiers trained on real images, and on this set alone with as many steps, on the "
        f"same {tested}; means over {plural(found.seeds, 'training')}.\n\n"
        + table(head, rows, align="lrrl")
    )
