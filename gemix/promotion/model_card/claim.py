"""The CLAIM checklist, as far as a run can answer it.

Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update",
Radiology: Artificial Intelligence 6(4), e240300, 2024, doi:10.1148/ryai.240300. Numbers and order
are those of the list that the RSNA publishes (https://rsna.github.io/claim/checklist.html); the
titles are ours, and short.
"""

from __future__ import annotations

from gemix.promotion.model_card.record import ClaimItem, ModelCard

_OPEN = {  # what no run knows
    1: ("Title names the method", "the title of the study"),
    2: ("Structured abstract", "the abstract"),
    4: ("Aims and hypotheses", "what was to be shown, before it was tested"),
    5: ("Prospective or retrospective", "how the scans were collected"),
    6: ("Goal of the study", "whether it makes, explores or confirms a model"),
    13: ("Acquisition of the images", "scanners, protocols, dose and contrast agent"),
    14: ("Definition of the reference standard", "how a scan got its class"),
    15: ("Why this reference standard", "why it was chosen, and where it errs"),
    16: ("Who gave the labels", "their number, training and what they could see"),
    17: ("Annotation of the test set", "instructions and software of those who labelled it"),
    18: ("Variability of the labels", "agreement between readers and of one with himself"),
    30: ("Robustness", "figures under other settings, noise or scanners"),
    33: ("External test", "figures on images of another site"),
    34: ("Trial registration", "where a trial is registered, if it is one"),
    36: ("Patients in each partition", "age, sex, origin, severity and treatment in each split"),
    44: ("Funding", "who paid, and what part they had"),
}


def claim_items(card: ModelCard) -> tuple[ClaimItem, ...]:
    """Return all 44 items in their order: what this run answers, and what people have to add."""
    known = {
        number: ClaimItem(number=number, title=title, answer=answer, open=rest)
        for number, (title, answer, rest) in _answers(card).items()
    }
    left = {
        number: ClaimItem(number=number, title=title, answer=None, open=rest)
        for number, (title, rest) in _OPEN.items()
    }
    return tuple(one for _, one in sorted((known | left).items()))


def _answers(card: ModelCard) -> dict[int, tuple[str, str | None, str | None]]:
    """Return title, answer and what is left open of the items that a run can say something on."""
    words, data, test = card.written, card.data, card.test
    training = card.training
    start = "ImageNet weights" if training["pretrained"] else f"random, seed {card.seed}"
    if training["weights"]:
        start = f"weights of the file {training['weights']}"
        if sha256 := training.get("weights_sha256"):
            start += f", SHA-256 {sha256}"
    sets = ", ".join(row.name for row in card.synthetic) or "none"
    return {
        3: (
            "Background and intended use",
            words.intended_use.strip() or None,
            "the clinical background"
            if words.intended_use.strip()
            else "intended use (promotion.card.intended_use) and the clinical background",
        ),
        7: ("Sources of the data", data.source, "where and when the scans were made"),
        8: (
            "Inclusion and exclusion",
            "the table From the source to the set counts what was left out",
            "clinical criteria",
        ),
        9: ("Preprocessing", "the table Preparation", None),
        10: (
            "Subsets of the data",
            "slices and parts of slices as the table Preparation says",
            None,
        ),
        11: (
            "De-identification",
            "prepare keeps pixels, geometry and labels alone, no header and no path",
            "what was done before the scans came",
        ),
        12: (
            "Missing data",
            "files that cannot be used are set aside, counted and listed; nothing is imputed",
            "what leaving them out may bias",
        ),
        19: (
            "Assignment to partitions",
            "by a hash of the name of the patient or group, or as the source's lists say",
            None,
        ),
        20: (
            "Level of disjointness",
            data.grouping or None,
            None if data.grouping else "the level",
        ),
        21: (
            "Sample size",
            f"{test.images} test images of {test.groups} {data.group_word}",
            "why as many were thought to be enough",
        ),
        22: ("The model", f"{card.architecture}, weights {card.checksum}", None),
        23: (
            "Software",
            ", ".join(f"{name} {version}" for name, version in card.software.items()),
            None,
        ),
        24: ("Initialization", start, None),
        25: (
            "Training",
            f"{training['epochs']} epochs, batch {training['batch']}, learning rate "
            f"{training['lr']:g}, augmentation {training['augment']}; synthetic images: {sets} "
            f"({training['recipe']})",
            None,
        ),
        26: (
            "Choice of the model",
            "the epoch, and the classifier that gemix evaluate or a sweep registers, by the best "
            "macro-F2 of the most probable class on validation images; any registered version may "
            "be named for the gate, which looks at the test images: where several were tried, the "
            "test images chose among them",
            "how many versions were tried (gemix.promotion of each in MLflow)",
        ),
        27: ("Ensembles", "none: one network", None),
        28: ("Metrics", "macro-F2 and false-negative rate first, accuracy last", None),
        29: (
            "Uncertainty",
            "95% intervals by a bootstrap over patients, of this one trained network",
            None,
        ),
        31: (
            "Explanations",
            "Grad-CAM maps of the predicted class in the report, and on request of the registered "
            "model, for convolutional networks",
            "whether anybody checked what the maps show",
        ),
        32: (
            "Evaluation on internal data",
            f"on the test split, which was opened {test.openings} times by now",
            "whether its labels were made as those of the training images, and rates on these",
        ),
        35: ("Numbers included and excluded", "the tables under Data", None),
        37: (
            "Performance with uncertainty",
            "the tables under Results, on the test split",
            "rates on the other partitions, and of groups of patients, by age or sex for one",
        ),
        38: ("Diagnostic performance by class", "recall and precision of each class", None),
        39: (
            "Analysis of failures",
            "the confusion matrix says which class is taken for which",
            "a look at the images that it got wrong",
        ),
        40: ("Limits", "the section Limits", None),
        41: ("Implications for practice", words.intended_use.strip() or None, "what a reader does"),
        42: ("Protocol and details", "the configuration, in the MLflow run", "the study protocol"),
        43: (
            "Availability",
            f"registered in MLflow; licence: {words.licence.strip()}"
            if words.licence.strip()
            else None,
            "whether images, code and weights can be had",
        ),
    }
