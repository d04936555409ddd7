"""Methods by name, relabelling, draws of patients, the plan of trainings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import entr

from gemix.classifier.augment.registry import AUGMENTATIONS
from gemix.classifier.config import ClassifierConfig
from gemix.comparison.config import CompareConfig
from gemix.comparison.method import Method
from gemix.comparison.patients import draw_patients
from gemix.comparison.plan import plan, units_of
from gemix.comparison.relabel.base import Labels
from gemix.comparison.relabel.registry import RELABELLINGS, load_relabelling
from gemix.comparison.relabel.testing import RelabellingContract
from gemix.core.errors import ConfigError, DataError


def test_a_method_is_images_and_how_they_are_used():
    method = Method.parse("softmax+cutmix+pretrain+hard")
    assert (method.images, method.augment, method.recipe, method.labels) == (
        *("softmax", "cutmix", "pretrain", "hard"),
    )
    assert method.synthetic == "softmax"
    configured = method.configured(ClassifierConfig())
    assert (configured.augment, configured.recipe) == ("ct+cutmix", "pretrain")
    assert Method.parse("real").configured(ClassifierConfig()) == ClassifierConfig()
    assert Method.parse("repeated").synthetic is None
    assert Method.parse("real+ct").configured(ClassifierConfig()).augment == "ct"
    assert Method.parse("real+none").configured(ClassifierConfig()).augment == "none"
    for name in AUGMENTATIONS.keys() - {"ct", "none"}:
        configured = Method.parse(f"softmax+{name}+pretrain").configured(ClassifierConfig())
        assert (configured.augment, configured.recipe) == (f"ct+{name}", "pretrain")
    same = [Method.parse(n).trains_as(ClassifierConfig()) for n in ("softmax", "softmax+mix+ct")]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("real+magic", r"'magic' is none of augment: .*ct, "),
        ("softmax+cutmix+mixup", "both of the kind augment"),
        ("real+pretrain", "needs synthetic images"),
        ("real+hard", "needs synthetic images"),
        ("+cutmix", "the name of a set of images first"),
        ("../softmax", "the name of a set of images first"),
    ],
)
def test_what_is_no_method_is_named(text, said):
    with pytest.raises(ConfigError, match=said):
        Method.parse(text)
    with pytest.raises(ConfigError, match=said):
        CompareConfig(methods=("real", text))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ("real",)}, "two or more methods"),
        ({"methods": ("softmax", "onehot")}, "the baseline 'real' among them"),
        ({"methods": ("real", "softmax", "softmax")}, "each once"),
        ({"fractions": ()}, "fractions"),
        ({"fractions": (0.0,)}, "fractions"),
    ],
)
def test_comparisons_of_nothing_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        CompareConfig.from_mapping(CompareConfig().to_mapping() | changes)


@pytest.mark.parametrize("name", RELABELLINGS)
class TestEveryRelabelling(RelabellingContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name):
        self.relabelling = load_relabelling(name)


def labels() -> Labels:
    return RelabellingContract().labels()


def test_hard_labels_are_of_the_dominant_class_and_asked_ones_of_the_generator():
    given = labels()
    _, hard = load_relabelling("hard")(given)
    assert (hard.argmax(axis=1) == given.synthetic.argmax(axis=1)).all()
    assert set(np.unique(hard)) == {0, 1}
    assert load_relabelling("asked")(given)[1] is given.asked


def test_smoothed_labels_have_the_entropy_of_the_reference():
    given = labels()
    for rows in load_relabelling("smoothed")(given):
        found, wanted = (entr(r.astype(np.float64)).sum(axis=1) for r in (rows, given.reference))
        assert found.mean() == pytest.approx(wanted.mean(), rel=1e-4)
        assert found.std() < 1e-6
    sure = dataclasses.replace(given, reference=given.real)
    assert (load_relabelling("smoothed")(sure)[0] == given.real).all()


def drawn(fraction: float, draw: int = 0, seed: int = 0) -> set[str]:
    classes = np.repeat([0, 1, 2], [30, 20, 4])
    groups = [f"p{index // 2}" for index in range(len(classes))]
    rows = draw_patients(
        classes, groups, fraction=fraction, draw=draw, seed=seed, classes=("a", "b", "c")
    )
    assert (np.diff(rows) > 0).all()
    return {groups[row] for row in rows}


def test_draws_are_of_whole_patients_of_every_class():
    counts = [
        len({p for p in drawn(0.2) if int(p[1:]) in of})
        for of in (
            range(15),
            range(15, 25),
            range(25, 27),
        )
    ]
    assert counts == [3, 2, 1]  # rounded up
    assert len(drawn(1.0)) == 27


def test_draws_differ_and_smaller_ones_are_in_larger_ones():
    assert drawn(0.2) < drawn(0.5) < drawn(1.0)
    assert drawn(0.2) == drawn(0.2)
    assert drawn(0.2) != drawn(0.2, draw=1) != drawn(0.2, seed=1)


def test_a_class_without_patients_is_named():
    with pytest.raises(DataError, match="class b: no training patient"):
        draw_patients(
            np.zeros(4, int), list("aabb"), fraction=0.5, draw=0, seed=0, classes=("a", "b")
        )


def test_the_plan_meets_methods_side_by_side_and_draws_below_one_alone():
    config = CompareConfig(methods=("real", "softmax"), seeds=2, fractions=(0.5, 1.0), draws=3)
    blocks = plan(config, "resnet10t", 7)
    assert [(block.fraction, block.draws) for block in blocks] == [(0.5, 3), (1.0, 1)]
    units = units_of(blocks)
    assert len(units) == 2 * 2 * 3 + 2 * 2
    assert [unit.method for unit in units[:4]] == ["real", "softmax"] * 2
    assert [(u.draw, u.seed) for u in blocks[0].units["softmax"]] == [
        *((0, 7), (0, 8), (1, 7), (1, 8), (2, 7), (2, 8)),
    ]
    assert {unit.generator for unit in units} == {None}


def test_trainings_take_the_generators_of_a_set_in_turn():
    sets = ("softmax=/a", "softmax=/b", "onehot=/c")
    config = CompareConfig(methods=("real", "softmax+hard", "onehot"), seeds=4, sets=sets)
    (block,) = plan(config, "resnet10t", 0)
    assert [unit.generator for unit in block.units["softmax+hard"]] == [0, 1, 0, 1]
    assert {unit.generator for unit in block.units["onehot"]} == {None}
    assert block.generators == {"real": 1, "softmax+hard": 2, "onehot": 1}
