"""The search space: ranges, conditions, first points, and how it is refused."""

from __future__ import annotations

import optuna
import pytest

from gemix.core.config_schema import InvalidConfig
from gemix.core.errors import ConfigError
from gemix.io.sweep_record import PUBLISHED, REFERENCE
from gemix.sweep.config import SweepConfig
from gemix.sweep.space import SearchSpace, class_weights

EVERYTHING = {
    "dirichlet_other": (0.1, 2.0),
    "pair_beta": (0.1, 10.0),
    "class_balance": (0.0, 1.0),
    "truncation_psi": (0.5, 1.0),
    "label_sources": ("asked", "teacher", "mixture"),
    "recipes": ("mix", "weight", "pretrain", "curriculum"),
    "lr": (1e-4, 1e-2),
    "models": ("resnet10t", "resnet18"),
}


def space_of(**settings) -> SearchSpace:
    return SearchSpace(SweepConfig(**settings), lr=1e-3, model="resnet10t")


def suggested(space: SearchSpace, **fixed) -> dict:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(fixed)
    return space.suggest(study.ask())


@pytest.mark.parametrize(
    ("fixed", "read"),
    [
        ({"ratio": 0.0, "label_source": "mixture", "recipe": "weight"}, {"ratio", "lr", "model"}),
        ({"ratio": 1.0, "method": "onehot"}, set()),
        ({"ratio": 0.5, "method": "softmax"}, {"temperature", "bias"}),
        ({"ratio": 0.5, "method": "dirichlet"}, {"dirichlet_dominant", "dirichlet_other"}),
        (
            {"ratio": 0.5, "method": "dirichlet_pair"},
            {"dirichlet_dominant", "dirichlet_other", "pair_beta"},
        ),
        ({"ratio": 1.0, "method": "onehot", "label_source": "mixture"}, {"mixture"}),
        ({"ratio": 1.0, "method": "onehot", "recipe": "weight"}, {"synthetic_weight"}),
        ({"ratio": 1.0, "method": "onehot", "recipe": "pretrain"}, {"synthetic_share"}),
        ({"ratio": 1.0, "method": "onehot", "recipe": "curriculum"}, {"synthetic_share"}),
    ],
)
def test_a_trial_reads_the_parameters_of_its_choices_alone(fixed, read):
    images = {"ratio", "method", "label_source", "recipe", "class_balance", "truncation_psi"}
    point = {"label_source": "asked", "recipe": "mix"} | fixed
    found = suggested(space_of(**EVERYTHING), **point)
    assert set(found) == (read | images | {"lr", "model"} if fixed["ratio"] else read)
    assert {name: found[name] for name in fixed if name in found}.items() <= fixed.items()


def test_the_first_points_are_real_images_alone_and_the_published_default():
    points = space_of(**EVERYTHING).first_points()
    assert points[REFERENCE] == {"ratio": 0.0, "lr": 1e-3, "model": "resnet10t"}
    assert points[PUBLISHED] == {
        "ratio": 1.0,
        "method": "softmax",
        "temperature": 1.0,
        "bias": 2.0,
        "class_balance": 0.0,
        "truncation_psi": 1.0,
        "label_source": "asked",
        "recipe": "mix",
        "lr": 1e-3,
        "model": "resnet10t",
    }


def test_a_range_without_the_published_default_leaves_it_out():
    assert list(space_of(temperature=(2.0, 4.0)).first_points()) == [REFERENCE]
    assert list(space_of(methods=("onehot",)).first_points()) == [REFERENCE]
    assert list(space_of(ratio=(0.0, 0.5)).first_points()) == [REFERENCE]
    assert list(space_of(label_sources=("teacher",)).first_points()) == [REFERENCE]
    assert list(space_of(recipes=("weight", "pretrain")).first_points()) == [REFERENCE]


def test_what_is_not_searched_is_no_parameter():
    space = space_of(bias=None, methods=("softmax", "onehot"))
    assert list(space.describe()) == ["ratio", "method", "temperature"]
    assert space.describe()["temperature"] == "0.1 to 10, log for softmax"


def test_ranges_of_a_choice_that_is_not_offered_are_no_parameters():
    space = space_of(label_sources=("asked", "teacher"), recipes=("mix", "pretrain"))
    described = space.describe()
    assert "mixture" not in described and "synthetic_weight" not in described
    assert described["label_source"] == "one of asked, teacher"
    assert described["synthetic_share"] == "0.1 to 0.9 for pretrain"
    assert "synthetic_share" not in space_of().describe()


def test_where_labels_come_from_and_how_images_are_used_are_settings():
    point = {"ratio": 1.0, "method": "onehot", "label_source": "mixture", "recipe": "weight"}
    found = suggested(space_of(**EVERYTHING), **point, mixture=0.3, synthetic_weight=0.2)
    settings = space_of(**EVERYTHING).settings(found, class_counts=[10, 40])
    expected = {
        "synthesis.labels": "mixture",
        "synthesis.mixture": 0.3,
        "classifier.recipe": "weight",
        "classifier.synthetic_weight": 0.2,
    }
    assert expected.items() <= settings.items() and "classifier.synthetic_share" not in settings


def test_settings_of_a_trial():
    space = space_of(**EVERYTHING)
    found = suggested(space, ratio=0.5, method="softmax", class_balance=1.0, temperature=0.3)
    settings = space.settings(found, class_counts=[10, 40])
    assert settings["synthesis.ratio"] == 0.5 and settings["labels.temperature"] == 0.3
    assert settings["labels.class_weights"] == pytest.approx([1.6, 0.4])
    assert settings["classifier.lr"] == found["lr"]


def test_class_weights_follow_the_rarity_of_a_class():
    assert class_weights([10, 40], 0.0) is None
    assert class_weights([10, 40], 0.5) == pytest.approx([4 / 3, 2 / 3])
    assert class_weights([0, 1], 1.0) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": [2, 1]}, r"temperature: given \[2.0, 1.0\], allowed: low before high"),
        ({"bias": []}, r"bias: given \[\], allowed: two numbers"),
        ({"bias": [1]}, "two numbers"),
        ({"temperature": [0, 1]}, "0.001 to 1000"),
        ({"ratio": [0.5, 1]}, "without synthetic images is the reference"),
        ({"ratio_step": 0.3}, "a divisor of 2"),
        ({"methods": []}, "one or more samplers"),
        ({"methods": ["softmx"]}, "did you mean 'softmax'"),
        ({"label_sources": ["asked", "asked"]}, "label_sources: .* a list of different values"),
        ({"recipes": ["mixed"]}, "did you mean 'mix'"),
        ({"mixture": [0.5, 1.5]}, "from 0 to 1"),
        ({"synthetic_share": [0.0, 0.5]}, "from 0.01 to 0.99"),
        ({"models": ["a", "a"]}, r"models: .* a list of different values"),
        ({"storage": "postgresql://me:secret@host/db"}, "PGPASSWORD"),
    ],
)
def test_bad_ranges_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message) as raised:
        SweepConfig.from_mapping(settings)
    assert "secret" not in str(raised.value)


def test_the_reference_must_be_a_point_of_the_space():
    with pytest.raises(ConfigError, match=r"classifier\.lr=0\.001 is the reference"):
        space_of(lr=(1e-5, 1e-4))
    with pytest.raises(ConfigError, match=r"classifier\.model=resnet10t"):
        space_of(models=("resnet18",))
