"""Teachers, and synthetic sets that they look at, in one process."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gemix.config import load
from gemix.core.errors import CheckpointError, ConfigError, DataError
from gemix.data.leakage.provenance import PROVENANCE, Provenance, write_provenance
from gemix.data.prepare import prepare_serial
from gemix.data.shards.manifest import MANIFEST, Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.verify import verify
from gemix.data.sources import open_source
from gemix.evaluation.label_fidelity.measure import label_fidelity
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.gan.config import SamplingConfig
from gemix.gan.sampling import sample_images
from gemix.io.records import write_record
from gemix.io.results import read_image_metrics, read_log
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps import synthesize as step
from gemix.steps.export_gan import export_gan
from gemix.steps.runtime.overlap import real_splits
from gemix.steps.synthesize import synthesize
from gemix.steps.train_gan import train_gan
from gemix.steps.train_teacher import train_teachers
from gemix.synthesis.fidelity import read_fidelity
from gemix.synthesis.teacher import TEACHER, Teachers

TINY = (
    *("data.resolution=16", "data.phantom.patients_per_class=8"),
    *("data.phantom.slices_per_patient=2", "compute.cpus_per_worker=1"),
    *("gan.kimg=0.032", "gan.batch=8", "gan.z_dim=16", "gan.w_dim=16", "gan.channel_base=128"),
    *("gan.channel_max=16", "gan.precision=float32", "metrics.images=0"),
    *("teacher.model=test_resnet", "teacher.epochs=2", "teacher.batch=8", "teacher.seeds=2"),
    *(
        "synthesis.methods=[softmax]",
        "synthesis.labels=asked",
        "synthesis.count=150",
        "synthesis.shard_rows=40",
    ),
)


def settings(*overrides: str):
    return load("demo", [*TINY, *overrides])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workspace:
    """Real images, two teachers and a generator that has learned little."""
    config, workspace = settings(), Workspace.at(tmp_path_factory.mktemp("teachers"))
    prepare_serial(open_source(config.data), config.data, Store(workspace.data))
    train_teachers(config, workspace)
    train_gan(config, workspace)
    return workspace


@pytest.fixture
def workspace(trained, tmp_path) -> Workspace:
    """The same with synthetic sets of its own."""
    for name in ("data", "teacher", "gan"):
        (tmp_path / name).symlink_to(Path(trained.workdir) / name)
    return Workspace.at(tmp_path)


def table(workspace: Workspace, name: str = "00000.parquet"):
    return pq.read_table(f"{workspace.synthetic('softmax')}/{name}")


def test_teachers_owe_nothing_to_validation_images(trained):
    teachers = Teachers.load(trained.teacher)
    assert [row.name for row in teachers.rows] == ["seed0", "seed1"]
    assert teachers.rows[0].checksum != teachers.rows[1].checksum
    validation = read_images([trained.data], "val")
    for row, one in zip(teachers.rows, teachers.members, strict=True):
        assert one.validation["epoch"] == 2  # the last epoch, whatever its score
        right = one.predict(validation.images).argmax(axis=1) == validation.labels
        assert row.real.agreement.value == pytest.approx(right.mean())
    learned = Provenance(Store(trained.teacher), "the teacher")
    groups = {group for batch in learned for group in batch["group"].to_pylist()}
    assert groups == set(read_images([trained.data], "train").groups)


def test_a_set_says_what_was_asked_and_what_each_teacher_sees(workspace):
    manifest = synthesize(settings("synthesis.labels=mixture"), workspace)["softmax"]
    rows = table(workspace)
    asked, seen = (np.array(rows[name].to_pylist()) for name in ("asked_label", "seen_labels"))
    assert asked.shape == (len(rows), 3) and seen.shape == (len(rows), 2, 3)
    labels = np.array(rows["soft_label"].to_pylist())
    np.testing.assert_allclose(labels, (asked + seen[:, 0]) / 2, atol=1e-6)
    assert rows["class_index"].to_pylist() == labels.argmax(axis=1).tolist()
    images = read_images([workspace.synthetic("softmax")])
    teachers = Teachers.load(workspace.teacher)
    np.testing.assert_allclose(teachers.probabilities(images.images)[: len(rows)], seen, atol=1e-5)
    assert manifest.origin["teachers"] == [row.checksum for row in teachers.rows]
    found = read_fidelity(Store(workspace.synthetic("softmax")))
    assert found.digest == manifest.digest and found.agreement.images == 150
    assert [view.real for view in found.teachers] == [row.real for row in teachers.rows]
    assert not verify(Store(workspace.synthetic("softmax"))).findings


@pytest.mark.parametrize(("labels", "others"), [("asked", 0), ("teacher", 1)])
def test_fidelity_is_that_of_the_first_images(workspace, labels, others):
    """A larger set's labels cost what they cost; its fidelity costs no more."""
    store = Store(workspace.synthetic("softmax"))
    whole, count = (f"synthesis.labels={labels}", "synthesis.fidelity_images=90"), 90
    synthesize(settings(*whole), workspace)
    looks = []
    for shard in Manifest.load(store).shards:
        rows = table(workspace, shard.name)["seen_labels"].to_pylist()
        looks += [len(row or ()) for row in rows]
    assert looks == [2] * count + [others] * (150 - count)
    found = read_fidelity(store)
    assert found.agreement.images == found.same_class.images == count
    assert sum(one.images for one in found.accepted.values()) == 150
    synthesize(
        settings(f"synthesis.labels={labels}", "synthesis.count=90"), workspace, overwrite=True
    )
    assert read_fidelity(store).teachers == found.teachers
    synthesize(settings(*whole, "synthesis.fidelity_images=0"), workspace, overwrite=True)
    assert read_fidelity(store) is None


def test_without_teachers_a_set_is_made_as_asked(workspace):
    (Path(workspace.workdir) / "teacher").unlink()
    synthesize(settings(), workspace)
    rows = table(workspace)
    assert rows["soft_label"].to_pylist() == rows["asked_label"].to_pylist()
    assert rows["seen_labels"].null_count == len(rows)
    assert read_fidelity(Store(workspace.synthetic("softmax"))) is None
    for override in ("synthesis.labels=teacher", "synthesis.accept=agreeing"):
        with pytest.raises(CheckpointError, match="run gemix train-teacher"):
            synthesize(settings(override), workspace, overwrite=True)


def test_a_set_is_the_same_however_it_is_cut_and_its_half_is_its_beginning(workspace, trained):
    whole = synthesize(settings("synthesis.labels=teacher"), workspace)["softmax"]
    cut = ("synthesis.labels=teacher", "synthesis.shard_rows=64", "synthesis.batch=7")
    other = synthesize(settings(*cut), workspace, overwrite=True)["softmax"]
    assert other.digest == whole.digest and len(other.shards) != len(whole.shards)
    images = read_images([workspace.synthetic("softmax")])
    half = ("synthesis.labels=teacher", "synthesis.count=75")
    synthesize(settings(*half), workspace, overwrite=True)
    first = read_images([workspace.synthetic("softmax")])
    np.testing.assert_array_equal(first.images, images.images[:75])
    np.testing.assert_array_equal(first.soft_labels, images.soft_labels[:75])


def test_a_stopped_set_goes_on_with_the_shards_that_are_there(workspace, monkeypatch, tmp_path):
    config, store = settings("synthesis.labels=teacher"), Store(workspace.synthetic("softmax"))
    write, written = step.write_synthetic_shard, []

    def stops_at_the_third(*arguments, **settings):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(arguments[1])
        return write(*arguments, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(step, "write_synthetic_shard", stops_at_the_third)
        synthesize(config, workspace)
    times = {name: os.stat(store.path(name)).st_mtime_ns for name in written}
    # other batches make the same images
    stopped = synthesize(settings("synthesis.labels=teacher", "synthesis.batch=7"), workspace)
    stopped = stopped["softmax"]
    assert times == {name: os.stat(store.path(name)).st_mtime_ns for name in written}
    assert "unfinished" not in str(store.list(recursive=True))
    undisturbed = synthesize(config, workspace, overwrite=True)["softmax"]
    assert stopped.digest == undisturbed.digest
    stopped.origin["synthesis"]["batch"] = config.synthesis.batch
    assert stopped.origin == undisturbed.origin


def test_other_settings_do_not_take_up_shards_of_a_stopped_set(workspace, monkeypatch):
    save = Manifest.save
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Manifest, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        synthesize(settings(), workspace)
    assert Manifest.save is save
    found = synthesize(settings("labels.bias=3"), workspace)["softmax"]
    assert (
        found.digest
        == synthesize(settings("labels.bias=3"), workspace, overwrite=True)["softmax"].digest
    )


def test_rejection_that_accepts_almost_nothing_ends_with_the_rates(workspace):
    config = settings(
        *("synthesis.accept=agreeing", "synthesis.min_seen=[1,1,1]", "synthesis.attempts=2")
    )
    with pytest.raises(DataError, match=r"normal: 0 of \d+ accepted, pneumonia: 0 of"):
        synthesize(config, workspace)
    assert not Store(workspace.synthetic("softmax")).exists(MANIFEST)
    with pytest.raises(ConfigError, match="min_seen has 2 numbers for 3 classes"):
        synthesize(settings("synthesis.accept=agreeing", "synthesis.min_seen=[0.1,0.1]"), workspace)


def test_a_teacher_that_learned_from_held_out_images_is_refused(workspace, tmp_path):
    """Provenance tells, though its weights look like any other's."""
    planted = Store(tmp_path / "planted")
    for name in Store(workspace.teacher).list(recursive=True):
        planted.write_bytes(name, Store(workspace.teacher).read_bytes(name))
    planted.delete(PROVENANCE)
    write_provenance(planted, real_splits(workspace, "test"), [])
    config = settings(f"synthesis.teacher={planted.url}", "synthesis.labels=teacher")
    with pytest.raises(DataError, match=r"the training images of the teacher .* share"):
        synthesize(config, workspace)


def test_labels_of_a_teacher_that_misses_a_class_are_warned_of(workspace, tmp_path, caplog):
    """Seen on real scans: a rare class that it misses is all but gone from the sets it labels."""
    planted = Store(tmp_path / "planted")
    for name in Store(workspace.teacher).list(recursive=True):
        planted.write_bytes(name, Store(workspace.teacher).read_bytes(name))
    labels = np.repeat(np.eye(3), 40, axis=0)
    seen = labels.copy()
    seen[85:] = labels[0]  # of the third class 5 of 40 are seen
    rows = [
        dataclasses.replace(row, real=label_fidelity(labels, seen))
        for row in Teachers.load(workspace.teacher).rows
    ]
    write_record(planted, TEACHER, rows)
    for source, said in (("teacher", 1), ("mixture", 1), ("asked", 0)):
        caplog.clear()
        config = settings(f"synthesis.teacher={planted.url}", f"synthesis.labels={source}")
        synthesize(config, workspace, overwrite=True)
        assert caplog.text.count("misses more than half of the real validation images") == said
        assert caplog.text.count("cancer (right on 12% of 40, at most 26%): with") == said


def test_a_teacher_of_other_classes_or_other_weights_is_refused(workspace, tmp_path):
    other = tmp_path / "other"
    config = dataclasses.replace(settings(), data=settings("data.resolution=32").data)
    elsewhere = Workspace.at(other)
    prepare_serial(open_source(config.data), config.data, Store(elsewhere.data))
    train_teachers(settings("teacher.seeds=1", "teacher.epochs=1"), elsewhere)
    with pytest.raises(DataError, match=r"images of \[1, 32, 32\]"):
        synthesize(settings(f"synthesis.teacher={elsewhere.teacher}"), workspace)
    rows = Store(elsewhere.teacher).read_json(TEACHER)
    Store(elsewhere.teacher).write_json(TEACHER, [rows[0] | {"checksum": "0" * 32}])
    with pytest.raises(CheckpointError, match="not the weights"):
        Teachers.load(elsewhere.teacher)


def test_label_agreement_is_measured_in_training_and_may_rank_snapshots(trained, tmp_path):
    for name in ("data", "teacher"):
        (tmp_path / name).symlink_to(Path(trained.workdir) / name)
    workspace, kept = Workspace.at(tmp_path), ("metrics.use_best=true", "metrics.best_by=labels")
    config = settings(
        *kept,
        *("metrics.images=60", "metrics.real_images=50", "metrics.every=1", "metrics.budget=1"),
        *("metrics.extractor=timm-random:test_resnet", "gan.kimg=0.064", "gan.snapshot_kimg=0.016"),
    )
    train_gan(config, workspace)
    lines = [line for line in read_log(Store(workspace.gan)) if "label_agreement" in line]
    assert lines  # how many depends on the budget of time
    found = read_image_metrics(Store(workspace.gan))
    best = max(line["label_agreement"] for line in lines)
    assert found.best.metric == "label_agreement"
    assert 1 - found.best.score == pytest.approx(best)
    assert found.generator.metrics["label_agreement"] == pytest.approx(best)
    # about that of other images of the generator that ships, of labels as in the training set
    teacher = Teachers.load(workspace.teacher).members[0]
    asked = np.resize(read_images([workspace.data], "train").labels, 320)
    images = sample_images(
        load_generator(Store(workspace.gan)).network,
        range(1000, 1320),
        np.eye(3, dtype=np.float32)[asked],
        SamplingConfig(),
    )
    shown = (teacher.predict(images).argmax(axis=1) == asked).mean()
    assert best == pytest.approx(shown, abs=0.2)
    (tmp_path / "teacher").unlink()
    with pytest.raises(CheckpointError, match="run gemix train-teacher"):
        train_gan(config, workspace, overwrite=True)


def test_another_site_makes_images_with_an_exported_generator_and_its_teacher(trained, tmp_path):
    out = tmp_path / "export"
    export_gan(trained.gan, str(out), teacher_url=trained.teacher)
    config, elsewhere = settings("data.phantom.seed=5"), Workspace.at(tmp_path / "elsewhere")
    prepare_serial(open_source(config.data), config.data, Store(elsewhere.data))
    foreign = (f"synthesis.generator={out}", f"synthesis.teacher={out}/teacher")
    config = settings("data.phantom.seed=5", "synthesis.labels=teacher", *foreign)
    manifest = synthesize(config, elsewhere)["softmax"]
    checksums = [row.checksum for row in Teachers.load(trained.teacher).rows]
    assert manifest.origin["teachers"] == checksums
    assert manifest.origin["generator"] == load_generator(Store(out)).checksum
    assert read_fidelity(Store(elsewhere.synthetic("softmax"))).agreement.images == 150
    # at a site whose held-out patients they learned from they are refused
    home = settings("synthesis.labels=teacher", "data.split_seed=7", *foreign)
    shuffled = Workspace.at(tmp_path / "shuffled")
    prepare_serial(open_source(home.data), home.data, Store(shuffled.data))
    with pytest.raises(DataError, match="the training images of the generator"):
        synthesize(home, shuffled)


def test_a_set_that_is_too_large_is_refused_before_it_starts(workspace, caplog):
    with pytest.raises(DataError, match=r"GB are free.*lower synthesis\.count"):
        synthesize(settings("synthesis.count=1000000000"), workspace)
    assert "1,000,000,000 images of 0 KB: 256 GB before compression" in caplog.text
    assert "hours on 1 worker(s)" in caplog.text
    assert not Store(workspace.synthetic("softmax")).list()
