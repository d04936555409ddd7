"""The report as one self-contained HTML page: no script, no font, no external link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import yaml

from gemix.comparison.paper_layout import RatedMethod, Table, table_1, table_2
from gemix.comparison.worth import format_patients
from gemix.config import PipelineConfig
from gemix.core.config_schema import Location, marked_fields
from gemix.evaluation.classification.bootstrap import warn_of_few_groups
from gemix.evaluation.label_fidelity.measure import Proportion
from gemix.io.results import ONLY, REAL
from gemix.report.charts import (
    SERIES,
    curves_chart,
    difference_chart,
    log_curve,
    validation_curves,
)
from gemix.report.content import ReportContent
from gemix.report.sections.comparison import (
    block_charts,
    block_columns,
    block_title,
    generators_note,
    learning_curves,
    not_better,
    paper_layout,
)
from gemix.report.sections.data import grey_chart
from gemix.report.sections.image_metrics import image_charts
from gemix.report.sections.inside import projection_charts
from gemix.report.sections.label_fidelity import fidelity_charts
from gemix.report.sections.probabilities import reliability_charts
from gemix.report.sections.sweep import params_text, ranked_trials, states_text, sweep_charts
from gemix.report.templates import data_uri, environment
from gemix.report.verdict import (
    ACCURACY,
    FNR,
    MACRO_F2,
    MISSED,
    SHOWN_METRICS,
    effect,
    method_name,
    signed,
)

# rows of the settings table; the page ends with the full configuration
_SETTINGS = (
    ("Scans", "data", "{source}, {resolution} × {resolution} pixels"),
    ("GAN", "gan", "{summary}, {kimg:g} kimg, batch {batch}, seed {seed}"),
    ("Softmax labels", "labels", "T = {temperature:g}, b = {bias:g}, σ = {noise_std:g}"),
    ("Dirichlet labels", "labels", "α = {dirichlet_dominant:g}, others {dirichlet_other:g}"),
    ("Synthesis", "synthesis", "truncation ψ = {truncation_psi:g}, seed {seed}"),
    ("Classifier", "classifier", "{model}, {epochs} epochs, {seeds} seed(s)"),
    ("Ray Train", "compute", "{workers} worker(s), {cpus_per_worker} CPU each"),
)
_GAN_CHARTS = (
    ("GAN: losses", {"generator": "loss_g", "discriminator": "loss_d"}, False),
    ("GAN: augmentation p and overfitting sign r_t", {"p": "augment_p", "r_t": "r_t"}, False),
    ("GAN: R1 penalty and path length", {"R1": "r1_penalty", "path length": "path_length"}, False),
)


def render(content: ReportContent) -> str:
    """Render the page.

    Returns:
        An HTML document, text escaped, images and charts inline.
    """
    templates = environment()
    templates.filters |= {
        "method": method_name,
        "rate": rate,
        "signed": signed,
        "share": share,
        "duration": duration,
        # as an image, in which a browser runs no script
        "svg": lambda data: data_uri(data, "image/svg+xml"),
        "block_title": block_title,
        "generators_note": generators_note,
        "not_better": not_better,
        "block_charts": block_charts,
        "block_columns": block_columns,
        "paper_layout": paper_layout,
        "ranked_trials": ranked_trials,
        "params_text": params_text,
        "states_text": states_text,
        "patients": format_patients,
        "shares": lambda row: [value / max(sum(row), 1) for value in row],
    }
    results = content.evaluation["results"] if content.evaluation else []
    return templates.get_template("page.html").render(
        content=content,
        results=results,
        classes=content.classes,
        metrics=[m for m in SHOWN_METRICS if any(r.get(m.key) is not None for r in results)],
        effect=effect,
        overlaps=_overlaps(content.evaluation or {}),
        few_groups=warn_of_few_groups(_test_set(content).get("groups_by_class") or {}),
        normal_class=_test_set(content).get("normal_class"),
        synthetic_only=[r["method"] for r in results if r["method"].endswith(ONLY)],
        difference_charts=_difference_charts(results),
        reliability_charts=reliability_charts(content.predictions),
        projection_charts=projection_charts(content.inside.projection)
        if content.inside and content.inside.projection
        else [],
        training_charts=[*_classifier_charts(content), *_gan_charts(content)],
        comparison=content.comparison,
        evaluation_tables=_paper_layout(results, content.config.classifier.model),
        sweep=content.sweep,
        sweep_charts=sweep_charts(content.sweep) if content.sweep else [],
        learning_curves=learning_curves(content.comparison) if content.comparison else [],
        fidelity_charts=fidelity_charts(content.label_fidelity),
        image_charts=image_charts(content.gan_log),
        grey_chart=grey_chart(content.data) if content.data else None,
        settings=_settings(content.config),
        configuration=_configuration(content.config),
        series=SERIES,
    )


def _test_set(content: ReportContent) -> Mapping[str, Any]:
    """Return what the evaluation recorded of the test set; earlier versions recorded less."""
    return (content.evaluation or {}).get("test") or {}


def _overlaps(evaluation: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each overlap, known or possible, of training and test."""
    found = evaluation.get("overlap") or {"shared": [], "unknown": []}
    return [
        *(
            f"Training and test overlap, which was allowed: {one['learned']} and "
            f"{one['held_out']} share {one['groups']} patients or groups, {one['images']} "
            f"equal images and {one.get('copies', 0)} copies of images. The results may measure "
            "memory."
            for one in found["shared"]
        ),
        *(
            f"There is no record of {name}: test images may be among them."
            for name in found["unknown"]
        ),
        *(
            f"{name} are on record without thumbnails: resaved, brightened or mirrored copies of "
            "them among the test images would not be found."
            for name in found.get("not_compared", ())
        ),
    ]


def rate(value: float | None) -> str:
    """Format with three decimals, or a dash if there is no value (no healthy class)."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def share(value: Proportion | float | None) -> str:
    """Format a share in percent, or a dash if there is none."""
    value = value.value if isinstance(value, Proportion) else value
    return "–" if value is None else f"{value:.1%}"


def duration(seconds: float) -> str:
    """Format wall time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _paper_layout(results: Sequence[Mapping[str, Any]], model: str) -> list[Table]:
    """Return an evaluation's rates in the layouts of the paper's two tables."""
    rated = [
        RatedMethod(classifier=model, method=method_name(row["method"]), rates=row)
        for row in results
    ]
    return [table_1(rated, method_name(REAL)), table_2(rated)]


def _difference_charts(results: Sequence[Mapping[str, Any]]) -> list[str]:
    charts = []
    for metric in (MACRO_F2, FNR, MISSED, ACCURACY):
        differences = {
            result["method"]: result["difference_to_real"][metric.key]
            for result in results
            if (result.get("difference_to_real") or {}).get(metric.key)
        }
        if differences:
            charts.append(difference_chart(metric, differences))
    return charts


def _classifier_charts(content: ReportContent) -> list[str]:
    charts = (
        ("Classifiers: validation macro-F2", "val_macro_f2", True),
        ("Classifiers: validation loss", "val_loss", False),
    )
    return [
        curves_chart(title, curves, xlabel="epoch", unit_range=unit_range)
        for title, key, unit_range in charts
        if (curves := validation_curves(content.histories, key))
    ]


def _gan_charts(content: ReportContent) -> list[str]:
    charts = []
    for title, keys, unit_range in _GAN_CHARTS:
        found = {name: log_curve(content.gan_log, "kimg", key) for name, key in keys.items()}
        curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {
            name: [curve] for name, curve in found.items() if curve is not None
        }
        if curves:
            charts.append(curves_chart(title, curves, xlabel="kimg", unit_range=unit_range))
    return charts


def _configuration(config: PipelineConfig) -> str:
    """Return the configuration as YAML, of files and directories the last part alone.

    A page is handed on, and a path may name people, hosts or buckets.
    """
    tree = config.to_mapping()
    for path in marked_fields(PipelineConfig, Location):
        section, name = path.split(".")
        if value := tree[section][name]:
            tree[section][name] = PurePath(value).name
    return yaml.safe_dump(tree, sort_keys=False)


def _settings(config: PipelineConfig) -> list[tuple[str, str]]:
    tree = config.to_mapping()
    tree["gan"]["summary"] = config.gan.summary
    return [(name, words.format(**tree[section])) for name, section, words in _SETTINGS]
