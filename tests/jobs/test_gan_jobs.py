"""train-gan, synthesize and sample, one after the other on Ray."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from gemix.core.errors import AlreadyFinishedError, CheckpointError
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.gan.sampling import sample_images
from gemix.io.storage import Store
from gemix.steps.runtime.outputs import open_step
from gemix.steps.sets.audit import audit_set
from gemix.steps.sets.find_sets import finished_sets
from gemix.steps.synthesize import synthesize
from gemix.steps.train_gan import train_gan
from gemix.synthesis.shards import shard_ranges
from jobs import sample as sample_job

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tiny_config, prepared):
    return prepared, train_gan(tiny_config, prepared)


@pytest.fixture(scope="module")
def synthesized(tiny_config, trained):
    workspace, _ = trained
    return workspace, synthesize(tiny_config, workspace)


def test_training_leaves_a_generator_a_log_and_pictures(trained, tiny_config):
    workspace, result = trained
    store = Store(workspace.gan)
    assert load_generator(store).checksum == result["checksum"]
    assert result["kimg"] == 0.064 and result["images_per_s"] > 0
    log = [json.loads(line) for line in store.read_bytes("log.jsonl").decode().splitlines()]
    assert [row["step"] for row in log] == list(range(1, 9))
    assert all(np.isfinite(row["loss_g"]) and np.isfinite(row["loss_d"]) for row in log)
    assert {"label_path.png", "config.yaml"} <= set(store.list())
    assert store.exists("samples/00000008.png")


def test_training_is_logged_to_mlflow(trained, tiny_config):
    workspace, _ = trained
    client = MlflowClient(f"sqlite:///{workspace.workdir}/mlflow.db")
    experiment = client.get_experiment_by_name(tiny_config.tracking.experiment)
    (run,) = client.search_runs([experiment.experiment_id], "tags.job = 'train-gan'")
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss_d")) == 8
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "label_path.png", "samples"} <= names


def test_a_stopped_training_goes_on_and_ends_the_same(trained, tiny_config):
    workspace, result = trained
    store = Store(workspace.gan)
    log = store.read_bytes("log.jsonl")
    # as a kill after step 6 of 8 leaves it
    store.delete("generator.json")
    store.delete("checkpoint-00000008.json")
    again = train_gan(tiny_config, workspace)
    assert again["checksum"] == result["checksum"]
    steps = [
        [json.loads(line)["step"] for line in text.splitlines()]
        for text in (log, store.read_bytes("log.jsonl"))
    ]
    assert steps[0] == steps[1] == list(range(1, 9))


def test_an_unfinished_training_of_other_settings_is_not_continued(trained, tiny_config):
    workspace, _ = trained
    store = Store(workspace.gan)
    marker = store.read_bytes("generator.json")
    store.delete("generator.json")
    gan = dataclasses.replace(tiny_config.gan, pl_weight=1.0)
    with pytest.raises(CheckpointError, match=r"pl_weight was \S+, now 1\.0.*--overwrite"):
        train_gan(dataclasses.replace(tiny_config, gan=gan), workspace)
    store.write_bytes("generator.json", marker)


def test_overwriting_starts_an_unfinished_step_over(tmp_path, tiny_config):
    store = open_step(str(tmp_path / "gan"), "generator.json", tiny_config, overwrite=False)
    store.write_bytes("checkpoint-00000001.json", b"{}")
    again = open_step(store.url, "generator.json", tiny_config, overwrite=True)
    assert again.list() == ["config.yaml"]
    Store(tmp_path / "home").write_bytes("thesis.tex", b"years of work")
    home = open_step(str(tmp_path / "home"), "generator.json", tiny_config, overwrite=True)
    assert home.exists("thesis.tex")


def test_synthetic_rows_say_where_they_come_from(synthesized, trained, tiny_config):
    workspace, manifests = synthesized
    generator = load_generator(Store(workspace.gan))
    assert {m.images() for m in manifests.values()} == {70}
    url = workspace.synthetic("softmax")
    rows = [
        row
        for shard in Manifest.load(Store(url)).shards
        for row in pq.read_table(f"{url}/{shard.name}").to_pylist()
    ]
    assert [row["seed"] for row in rows] == list(range(70))
    assert {row["generator"] for row in rows} == {generator.checksum}
    assert all(row["class_index"] in (0, 1, 2) for row in rows)
    row = rows[66]
    again = sample_images(
        generator.network, [row["seed"]], np.array([row["soft_label"]]), tiny_config.synthesis
    )
    stored = np.frombuffer(row["image"], np.uint8).reshape(again[0].shape)
    assert np.abs(stored.astype(int) - again[0]).max() <= 1


def test_real_and_synthetic_sets_read_as_one(synthesized, tiny_config):
    workspace, _ = synthesized
    real = read_images([workspace.data], "train")
    both = read_images([workspace.data, workspace.synthetic("onehot")], "train")
    assert len(both) == len(real) + 70
    assert not set(both.groups[len(real) :]) & set(real.groups)
    with pytest.raises(AlreadyFinishedError):
        synthesize(tiny_config, workspace)


def test_a_generator_of_other_classes_is_refused(synthesized, tiny_config):
    workspace, _ = synthesized
    data = Store(workspace.data)
    manifest = Manifest.load(data)
    try:
        classes = ("a", *manifest.classes[1:])
        counts = {
            s: dict(zip(classes, c.values(), strict=True)) for s, c in manifest.counts.items()
        }
        dataclasses.replace(manifest, classes=classes, counts=counts).save(data)
        with pytest.raises(CheckpointError, match="run gemix train-gan on these data"):
            synthesize(tiny_config, workspace, overwrite=True)
    finally:
        manifest.save(data)


def test_sample_writes_pictures_and_refuses_what_is_no_label(trained, tmp_path, capsys):
    workspace, _ = trained
    arguments = ["-w", workspace.workdir, "--seeds", "0-2,9", "--out", str(tmp_path)]
    assert sample_job.COMMAND.main([*arguments, "--label", "0.7,0.2,0.1"]) == 0
    names = Store(tmp_path).list()
    assert {"grid.png", "images.npz", "seed0000000009.png"} <= set(names)
    archive = np.load(tmp_path / "images.npz", allow_pickle=False)
    assert archive["images"].shape == (4, 1, 16, 16)
    assert sample_job.COMMAND.main([*arguments, "--overwrite", "--label", "0.7,0.2,0.2"]) == 1
    assert "sums to 1.1" in capsys.readouterr().err
    assert sample_job.COMMAND.main([*arguments, "--overwrite", "--label", "1,0"]) == 1
    assert "2 weights" in capsys.readouterr().err
    assert sample_job.COMMAND.main([*arguments, "--label", "a,b,c"]) == 2


def test_shards_cover_the_set_once():
    for count, rows in [(1, 10), (70, 8192), (5000, 8192), (1000, 100)]:
        ranges = shard_ranges(count, rows)
        covered = [i for start, size in ranges for i in range(start, start + size)]
        assert covered == list(range(count))
        assert max(size for _, size in ranges) <= rows


def test_sets_of_a_trained_generator_are_audited(synthesized, tiny_config):
    workspace, manifests = synthesized
    assert finished_sets(tiny_config, workspace) == ["softmax", "onehot"]
    audit = audit_set(tiny_config, workspace, "softmax")
    assert audit.set_digest == manifests["softmax"].digest
    assert audit.generator == load_generator(Store(workspace.gan)).checksum
    assert audit.findings.learned_from.is_on_record and audit.findings.learned_from.elsewhere == 0
    assert {attack.space for attack in audit.findings.attacks} == {"pixels", "features"}
    assert audit.verdict == "undecided"  # of 18 patients
    assert any("audit.min_patients" in reason for reason in audit.reasons)
    assert 0 <= audit.discriminator.auc <= 1
