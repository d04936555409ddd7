"""Generators that a comparison trains: of each draw of patients, of other seeds, the baseline's."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from gemix.config import load
from gemix.core.errors import ConfigError, DataError
from gemix.data.leakage.provenance import Provenance
from gemix.data.prepare import prepare_serial
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.subset import write_subset
from gemix.data.shards.verify import verify
from gemix.data.sources import open_source
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.gan.models.cgan import CganGenerator
from gemix.gan.models.generator import Generator
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.compare import generators
from gemix.steps.compare.step import compare
from gemix.steps.compare.tables import rows_of
from gemix.steps.synthesize import synthesize
from gemix.steps.train_gan import train_gan
from gemix.steps.train_teacher import train_teachers
from gemix.synthesis.teacher import TEACHER

TINY = (
    *("data.resolution=16", "data.phantom.patients_per_class=12"),
    *("data.phantom.slices_per_patient=2", "compute.cpus_per_worker=1", "compute.workers=0"),
    *("gan.kimg=0.016", "gan.batch=8", "gan.z_dim=16", "gan.w_dim=16", "gan.channel_base=128"),
    *("gan.channel_max=16", "metrics.images=0"),
    *("teacher.model=test_resnet", "teacher.epochs=1", "teacher.batch=8", "teacher.seeds=1"),
    *("classifier.model=test_resnet", "classifier.epochs=1", "classifier.batch=8"),
    *("synthesis.ratio=2", "compare.seeds=1"),
)


def settings(*overrides: str):
    return load("demo", [*TINY, *overrides])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Real images, and nothing else."""
    config, workspace = settings(), Workspace.at(tmp_path_factory.mktemp("site"))
    prepare_serial(open_source(config.data), config.data, Store(workspace.data))
    return workspace


def made_by(workspace: Workspace) -> list[Workspace]:
    """The work directories of the generators that a comparison has trained."""
    store = Store(workspace.comparison) / "generators"
    names = {name.split("/")[0] for name in store.list(recursive=True)}
    return [Workspace(f"{store.url}/{name}") for name in sorted(names)]


def set_of(made: Workspace, method: str) -> str:
    """The directory of a method's set in a work directory that a comparison has made."""
    (found,) = [name for name in os.listdir(f"{made.workdir}/synthetic") if method in name]
    return f"{made.workdir}/synthetic/{found}"


def patients(source) -> set[str]:
    return {group for table in source for group in table["group"].to_pylist()}


def by_method(results) -> dict:
    return {row["method"]: row for row in results["blocks"][0]["methods"]}


def test_each_draw_trains_generator_and_teacher_on_its_own_patients(workspace, caplog):
    drawn = (
        *("compare.methods=[real,softmax,onehot,cgan]", "compare.fractions=[0.5]"),
        *("compare.draws=3", "compare.generator=retrained"),
    )
    results = compare(settings(*drawn), workspace)
    found = made_by(workspace)
    assert [one.workdir.split("/")[-1].rsplit("-", 1)[0] for one in found] == [
        *(f"cgan-0.5-{draw}-seed{draw}" for draw in range(3)),
        *(f"gan-0.5-{draw}-seed{draw}" for draw in range(3)),
    ]
    everyone = set(read_images([workspace.data], "train").groups)
    for one in found:
        mine = set(read_images([one.data], "train").groups)
        assert mine < everyone and len(mine) == 13 == results["blocks"][0]["patients"]
        assert patients(Provenance(Store(one.gan), "")) == mine
        assert not verify(Store(one.data)).findings
    assert len({tuple(sorted(set(read_images([one.data], "train").groups))) for one in found}) == 3
    styles = [one for one in found if "/gan-" in one.workdir]
    for one in styles:
        assert patients(Provenance(Store(one.teacher), "")) == set(
            read_images([one.data], "train").groups
        )
        for name in ("softmax", "onehot"):
            rows = Manifest.load(Store(set_of(one, name)))
            assert rows.images() == 2 * Manifest.load(Store(one.data)).images("train")
        assert isinstance(load_generator(Store(one.gan)).network, Generator)
    for one in found:
        if one not in styles:
            assert isinstance(load_generator(Store(one.gan)).network, CganGenerator)
            assert not Store(one.teacher).exists(TEACHER)  # its labels are as asked for
    for name in ("softmax", "onehot", "cgan"):
        row = by_method(results)[name]
        assert (row["generators"], row["over_generators"], row["retrained"]) == (3, True, True)
        assert row["generator_patients"] == results["blocks"][0]["patients"]
    assert rows_of(results["blocks"][0])[1][-1][-1].endswith("intervals over 3 generators")
    learned = patients(Provenance(Store(workspace.comparison), ""))
    assert learned >= everyone
    # the same command trains nothing; another draw trains its own
    with caplog.at_level(logging.INFO):
        caplog.clear()
        compare(settings(*drawn), workspace)
        assert "kimg" not in caplog.text
        compare(settings(*drawn, "compare.draws=4"), workspace)
    assert len(made_by(workspace)) == 8
    assert caplog.text.count("StyleGAN2-ADA, nonsaturating") == 1


ONE_DRAW = (
    *("compare.fractions=[0.5]", "compare.draws=1", "compare.generator=retrained"),
    "compare.seeds=2",
)


def test_what_is_finished_is_kept_until_a_setting_that_it_depends_on_changes(tmp_path, caplog):
    config, workspace = settings(), Workspace.at(tmp_path)
    prepare_serial(open_source(config.data), config.data, Store(workspace.data))

    def trained(*overrides: str) -> tuple[int, int]:
        """How many generators and sets there are after a comparison."""
        compare(settings(*ONE_DRAW, *overrides), workspace)
        found = made_by(workspace)
        sets = [f"{one.workdir}/synthetic" for one in found]
        return len(found), sum(len(os.listdir(folder)) for folder in sets)

    assert trained("compare.methods=[real,softmax]") == (1, 1)
    # a set is added, or made with other settings: the same generator
    assert trained("compare.methods=[real,softmax,onehot]") == (1, 2)
    more = ("compare.methods=[real,softmax]", "synthesis.ratio=3")
    assert trained(*more) == (1, 3)
    assert trained(*more, "labels.temperature=2") == (1, 4)
    assert trained(*more, "synthesis.fidelity_images=5") == (1, 4)
    # another generator
    assert trained(*more, "gan.kimg=0.024") == (2, 5)
    start = ("gan.init_from=" + made_by(workspace)[0].gan,)
    assert trained(*more, *start) == (3, 6)


def test_a_generator_that_fails_fails_its_methods_alone(workspace, monkeypatch):
    def broken(config, workspace, **_):
        if config.gan.method == "cgan":
            raise DataError("the loss is nan")
        return train_gan(config, workspace)

    monkeypatch.setattr(generators, "train_gan", broken)
    methods = ("compare.methods=[real,softmax,cgan]", "classifier.epochs=2")
    rows = by_method(compare(settings(*ONE_DRAW, *methods), workspace))
    assert rows["softmax"]["failure"] is None
    assert rows["cgan"]["failure"] == "its generator failed: the loss is nan"
    monkeypatch.undo()
    rows = by_method(compare(settings(*ONE_DRAW, *methods), workspace))  # tried again
    assert rows["cgan"]["failure"] is None


def test_generators_of_other_seeds_and_the_baseline_are_trained_on_request(tmp_path):
    config, workspace = settings(), Workspace.at(tmp_path)
    prepare_serial(open_source(config.data), config.data, Store(workspace.data))
    for step in (train_teachers, train_gan):
        step(config, workspace)
    synthesize(config, workspace, methods=["softmax"])
    wanted = ("compare.methods=[real,cgan,softmax]", "compare.gan_seeds=3", "compare.seeds=3")
    results = by_method(compare(settings(*wanted, "compare.baseline=cgan"), workspace))
    for name in ("softmax", "cgan"):
        assert (results[name]["generators"], results[name]["over_generators"]) == (3, True)
    found = [one.workdir.split("/")[-1].rsplit("-", 1)[0] for one in made_by(workspace)]
    # the generator of seed 0 is that of the work directory
    assert found == ["cgan-seed0", "cgan-seed1", "cgan-seed2", "gan-seed1", "gan-seed2"]
    sets = [Manifest.load(Store(set_of(one, "softmax"))) for one in made_by(workspace)[3:]]
    sets.append(Manifest.load(Store(workspace.synthetic("softmax"))))
    assert len({one.origin["generator"] for one in sets}) == 3
    assert len({tuple(one.origin["teachers"]) for one in sets}) == 1  # the work directory's
    table = Store(workspace.comparison).read_bytes("tables/paper-table-1.md").decode()
    assert "| cgan: accuracy |" in table
    # generators of other settings are no repetitions, nor is one of the same seed
    with pytest.raises(ConfigError, match=r"made with other settings than these: gan\.seed"):
        compare(settings(*wanted, "gan.seed=1"), workspace)
    with pytest.raises(ConfigError, match=r"labels\.temperature \(softmax\)"):
        compare(settings(*wanted, "labels.temperature=3"), workspace)
    with pytest.raises(DataError, match=r"no finished generator.*run gemix train-gan"):
        elsewhere = Workspace.at(tmp_path / "elsewhere")
        Path(elsewhere.workdir).mkdir()
        Path(elsewhere.data).symlink_to(workspace.data)
        compare(settings(*wanted), elsewhere)


def test_what_cannot_be_trained_is_refused_before_anything_runs(workspace, tmp_path):
    with pytest.raises(ConfigError, match=r"compare.fractions.*one below 1"):
        settings("compare.generator=retrained")
    with pytest.raises(ConfigError, match=r"gan_seeds.*each draw has a generator of its own"):
        settings("compare.generator=retrained", "compare.fractions=[0.5]", "compare.gan_seeds=2")
    with pytest.raises(ConfigError, match=r"methods.*a set that gemix makes"):
        settings("compare.methods=[real,real+cutmix]", "compare.gan_seeds=3")
    with pytest.raises(ConfigError, match=r"seeds.*a multiple of 2, the generators of softmax"):
        settings("compare.gan_seeds=2", "compare.methods=[real,softmax]", "compare.seeds=3")
    foreign = settings(
        *("compare.methods=[real,softmax]", "compare.fractions=[0.5]", "compare.draws=2"),
        *("compare.generator=retrained", f"synthesis.generator={tmp_path}"),
    )
    before = made_by(workspace)
    with pytest.raises(ConfigError, match=r"synthesis.generator=.*set it to null"):
        compare(foreign, workspace)
    assert made_by(workspace) == before


def test_a_subset_has_some_patients_and_all_that_is_held_out(workspace, tmp_path):
    whole = read_images([workspace.data], "train")
    some = set(sorted(set(whole.groups))[:5])
    subset = write_subset(Store(workspace.data), Store(tmp_path), some)
    mine = read_images([str(tmp_path)], "train")
    kept = [row for row, group in enumerate(whole.groups) if group in some]
    assert mine.groups == tuple(whole.groups[row] for row in kept)
    assert (mine.images == whole.images[kept]).all() and (mine.labels == whole.labels[kept]).all()
    for split in ("val", "test"):
        assert read_images([str(tmp_path)], split).digest == (
            read_images([workspace.data], split).digest
        )
    assert not verify(Store(tmp_path)).findings
    # a copy that was cut short is written again, a finished one is kept
    Store(tmp_path).delete(MANIFEST)
    assert write_subset(Store(workspace.data), Store(tmp_path), some) == subset
