"""The section on label fidelity."""

from __future__ import annotations

import numpy as np

from gemix.evaluation.label_fidelity.measure import Proportion, label_fidelity
from gemix.io.records import write_record
from gemix.io.storage import Store
from gemix.report.content import gather
from gemix.report.page import render
from gemix.synthesis.fidelity import FIDELITY, SetFidelity, TeacherView


def view(name: str, obedience: float) -> TeacherView:
    rng = np.random.default_rng(0)
    asked = rng.dirichlet([0.5] * 3, size=400)
    other = np.eye(3)[rng.integers(3, size=400)]
    obeys = rng.random(400)[:, None] < obedience
    real = np.eye(3)[rng.integers(3, size=90)]
    return TeacherView(
        name=name,
        synthetic=label_fidelity(asked, np.where(obeys, asked, other)),
        real=label_fidelity(real, np.where(rng.random(90)[:, None] < 0.9, real, 1 - real)),
    )


def test_what_teachers_see_is_shown_beside_what_was_asked(finished, config):
    assert "show the labels that were asked for" not in render(gather(finished, config))
    found = SetFidelity(
        digest="ab",
        teachers=(view("seed0", 0.5), view("seed1", 0.6)),
        same_class=Proportion.of(350, 400),
        accepted={"normal": Proportion.of(10, 40)}
        | {name: Proportion.of(10, 10) for name in ("pneumonia", "cancer")},
    )
    write_record(Store(finished.synthetic("softmax")), FIDELITY, found)
    page = render(gather(finished, config))
    start = page.index("Do the images show the labels that were asked for?")
    section = page[start : page.index("</section>", start)]
    for value in (
        found.agreement.value,
        found.teachers[0].real.agreement.value,
        found.teachers[1].synthetic.agreement.value,
    ):
        assert f"{value:.1%}" in section
    assert "25.0%" in section  # kept of one class
    for right in found.teachers[0].real.agreement_by_class:
        assert f"{right.value:.1%}</td></tr>" in section
    assert section.count("<svg") == 2 and "entropy seen" in section
    assert ">onehot<" not in section  # its labels were not checked
