"""The part of the page about the privacy audits."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from gemix.core.errors import DataError
from gemix.core.png import encode_png
from gemix.data.shards.manifest import Manifest
from gemix.evaluation.privacy.decision import decide
from gemix.io.audit_record import (
    AUDIT,
    AUDIT_PAIRS,
    Auc,
    Audit,
    AuditedImages,
    AuditFindings,
    Copies,
    LearnedFrom,
    MembershipAttack,
    NearImages,
)
from gemix.io.records import write_record
from gemix.io.storage import Store
from gemix.report.content import gather
from gemix.report.page import render


def write_audit(workspace, config, method, centre, digest=None) -> None:
    """An audit whose attacks have this AUC, by pixels and features."""
    interval = Auc(auc=centre, low=centre - 0.04, high=centre + 0.04)
    half = Auc(auc=0.5, low=0.45, high=0.55)
    findings = AuditFindings(
        images=AuditedImages(
            synthetic=30,
            synthetic_total=30,
            training=60,
            training_patients=30,
            members=60,
            member_patients=30,
            held_out=50,
            held_out_patients=25,
        ),
        learned_from=LearnedFrom(is_on_record=True, elsewhere=0, unknown=()),
        copies=Copies(resaved=0, held_out=0, singular=0),
        near=(
            NearImages(
                space="pixels", expected=0.05, expected_high=0.1, share=0.07, low=0.03, high=0.12
            ),
        ),
        attacks=tuple(
            MembershipAttack(
                space=space, attack="nearest", result=interval, control=half, shift=half
            )
            for space in ("pixels", "features")
        ),
    )
    verdict, reasons = decide(findings, config.audit)
    store = Store(workspace.synthetic(method))
    digest = digest or Manifest.load(store).digest
    audit = Audit(
        set_digest=digest,
        verdict=verdict,
        reasons=reasons,
        findings=findings,
        settings={},
        discriminator=Auc(auc=0.97, low=0.95, high=0.99),
        pairs=(),
    )
    write_record(store, AUDIT, audit)
    picture = encode_png(np.zeros((4, 4, 1), np.uint8))
    Store(workspace.audit(digest)).write_bytes(AUDIT_PAIRS, picture)


def part_of(page: str) -> str:
    section = page[page.index("Whom the synthetic images give away") :]
    text = re.sub(r"<[^>]*>", " ", section[: section.index("</section>")])
    return " ".join(text.split())


def test_every_set_has_its_verdict_with_reasons(finished, config):
    write_audit(finished, config, "softmax", 0.51)
    write_audit(finished, config, "dirichlet", 0.8)
    write_audit(finished, config, "onehot", 0.5, digest="0" * 64)  # of another version of the set
    page = render(gather(finished, config))
    text = part_of(page)
    assert "softmax images: passed Membership inference by distance of pixels: AUC 0.51" in text
    assert "dirichlet images: failed Membership inference" in text and "audit.fail_auc" in text
    assert "onehot images: not audited" in text and "gemix audit onehot" in text
    assert "nearest distance, features 0.51 (0.47 to 0.55) 0.50 (0.45 to 0.55)" in text
    assert "never shipped no part of the verdict 0.97 (0.95 to 0.99) – –" in text
    assert "30 of 30 images beside 60 members (30 patients) and 50 held-out images" in text
    assert "by pixels: 7.0% (3.0% to 12.0%), of real images to another patient 5.0%" in text
    assert page.count('alt="worst pairs of the ') == 2


def test_the_page_judges_by_the_thresholds_of_today(finished, config):
    write_audit(finished, config, "softmax", 0.58)
    assert "softmax images: passed" in part_of(render(gather(finished, config)))
    strict = dataclasses.replace(config.audit, fail_auc=0.52)
    text = part_of(render(gather(finished, dataclasses.replace(config, audit=strict))))
    assert "softmax images: failed" in text


def test_a_damaged_audit_is_told(finished, config):
    Store(finished.synthetic("softmax")).write_json(AUDIT, {"verdict": "passed"})
    with pytest.raises(DataError, match=r"audit\.json: set_digest is missing; run gemix audit"):
        gather(finished, config)
