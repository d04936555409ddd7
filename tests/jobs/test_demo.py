"""The demo: a large site's generator, used by a small site of other patients."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gemix.config import load
from gemix.core.errors import ConfigError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.executor import LocalExecutor
from jobs.demo import LARGE_SITE, LARGE_SITE_SEED, SMALL_SITE, run_sites

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sites(tiny_overrides, tmp_path_factory):
    tiny = [*tiny_overrides, "synthesis.labels=teacher", "gan.init_from=null"]
    sizes = ["data.phantom.patients_per_class=12", "synthesis.count=40"]
    large = load("demo", [*LARGE_SITE, *tiny, LARGE_SITE_SEED])
    small = load("demo", [*SMALL_SITE, *tiny, *sizes])
    workspace = Workspace.at(tmp_path_factory.mktemp("demo"))
    return large, small, workspace, run_sites(large, small, workspace, executor=LocalExecutor())


def large_site(workspace: Workspace) -> Workspace:
    return Workspace.at(f"{workspace.workdir}/large-site")


def test_the_small_site_trains_no_generator_and_no_teacher(sites):
    _, _, workspace, summary = sites
    assert summary["gan"] is None
    assert not {"train-gan", "train-teacher"} & set(summary["wall_seconds"])
    assert not Path(workspace.gan).exists() and not Path(workspace.teacher).exists()
    assert summary["synthetic"]["per_method"] == {"softmax": 40, "onehot": 40}
    made_by = Manifest.load(Store(workspace.synthetic("softmax"))).origin["generator"]
    shared = Store(f"{workspace.workdir}/shared").read_json("generator.json")
    assert made_by == shared["sha256"]


def test_the_large_site_ends_with_its_generator(sites):
    _, _, workspace, _ = sites
    left = {path.name for path in Path(large_site(workspace).workdir).iterdir() if path.is_dir()}
    assert {"data", "teacher", "gan"} <= left and not left & {"synthetic", "classifiers", "report"}


def test_the_sites_have_no_patient_in_common(sites):
    large, small, workspace, _ = sites
    of = [set(read_images([site.data]).groups) for site in (workspace, large_site(workspace))]
    assert all(of) and not of[0] & of[1]
    same = dataclasses.replace(small, data=large.data)
    with pytest.raises(ConfigError, match=r"data\.phantom\.seed=78"):
        run_sites(large, same, workspace, executor=LocalExecutor())


def test_the_page_says_how_good_the_other_sites_classifier_is(sites):
    _, _, workspace, summary = sites
    teacher = summary["teacher"]
    low, high = teacher["intervals"]["macro_f2"]
    assert 0 <= low <= teacher["macro_f2"] <= high <= 1 and teacher["seeds"] == 1
    page = Store(workspace.report).read_bytes("report.html").decode()
    assert f"has, as it is, macro-F2 {teacher['macro_f2']:.3f}" in page
    assert "has not run" not in page  # a generator of others is no step that is missing


def test_a_new_generator_makes_new_images(sites):
    large, small, workspace, _ = sites
    made = Path(workspace.synthetic("softmax"), "manifest.json")
    before = made.read_bytes()
    other = dataclasses.replace(large, gan=dataclasses.replace(large.gan, seed=5))
    run_sites(other, small, workspace, executor=LocalExecutor(), redo=True)
    assert made.read_bytes() != before
