"""The audit of a set: who passes, who fails and why, and what an audit is bound to."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gemix.config import PipelineConfig, load
from gemix.core.errors import ConfigError, DataError
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.evaluation.privacy.config import AuditConfig
from gemix.evaluation.privacy.decision import why_not_passed
from gemix.io.audit_record import Audit, Copies, read_audit
from gemix.io.records import write_record
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.runtime.executor import LocalExecutor
from gemix.steps.sets.audit import audit_set
from gemix.steps.sets.card import write_card
from gemix.steps.sets.export_set import export_set
from gemix.steps.train_classifier import train_classifiers
from gemix.synthesis.set_card.record import read_card
from gemix.zoo import open_pretrained
from jobs import audit as audit_job
from tests.steps.audit_sets import phantoms, write_real, write_synthetic

CONFIG = load("demo", ["audit.spaces=[pixels]"])
TRAIN, VAL, UNSEEN = 160, 80, 90


def with_audit(**changes: object) -> PipelineConfig:
    return dataclasses.replace(CONFIG, audit=dataclasses.replace(CONFIG.audit, **changes))


@pytest.fixture(scope="module")
def patients() -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).permutation(phantoms(0, TRAIN + VAL + UNSEEN))
    return {
        "train": images[:TRAIN],
        "val": images[TRAIN : TRAIN + VAL],
        "unseen": images[TRAIN + VAL :],
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, patients) -> Iterator[Workspace]:
    workspace = Workspace.at(tmp_path_factory.mktemp("audited"))
    write_real(workspace.data, {split: patients[split] for split in ("train", "val")})
    with pytest.MonkeyPatch.context() as patch:  # making a database takes long
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace.workdir}/mlflow.db")
        yield workspace


@pytest.fixture(scope="module")
def passed(workspace, patients) -> Audit:
    """The audit of independent patients, in the set of the method softmax."""
    add_set(workspace, "softmax", patients["unseen"])
    return audit_set(CONFIG, workspace, "softmax")


def add_set(workspace: Workspace, method: str, images: np.ndarray, generator=None) -> Store:
    learned = [Split(Store(workspace.data), "train")]
    return Store(write_synthetic(workspace.synthetic(method), images, learned, generator))


def test_independent_patients_pass_by_membership_inference_alone(workspace, passed):
    assert (passed.verdict, len(passed.reasons)) == ("passed", 2)
    assert all(reason.startswith("membership inference by") for reason in passed.reasons)
    found = passed.findings
    assert found.copies == Copies(resaved=0, held_out=0, singular=0)
    assert [near.expected for near in found.near] == pytest.approx([0.05, 0.004], abs=0.001)
    assert all(near.low < near.expected_high for near in found.near)
    for attack in found.attacks:
        assert attack.result.low < 0.5 < attack.result.high < 0.65
        assert attack.control.low < attack.control.auc == pytest.approx(0.5, abs=0.01)
        assert attack.control.high > 0.53
    assert found.images.training == found.images.members == TRAIN
    assert (found.images.held_out, found.images.synthetic_total) == (VAL, UNSEEN)


def test_the_record_is_read_back_and_names_no_real_image(workspace, passed):
    store = Store(workspace.synthetic("softmax"))
    assert read_audit(store, passed.set_digest) == passed
    text = store.read_bytes("audit.json").decode()
    assert "patient-" not in text and "synthetic-" in text
    assert store.list() == ["00000.parquet", "audit.json", "manifest.json", "seen.parquet"]
    (picture,) = Path(workspace.audit(passed.set_digest)).iterdir()
    assert picture.name == "audit-pairs.png" and Image.open(picture).size[0] > 1000


def noisy(images: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, 8, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


MEMORIES = {
    "noisy": noisy,
    "mirrored": lambda images: images[..., ::-1],
    "moved": lambda images: np.roll(images, (1, -1), axis=(2, 3)),
    "brighter": lambda images: (images * 0.8 + 40).astype(np.uint8),
}


@pytest.mark.parametrize("change", MEMORIES)
def test_a_generator_that_replays_its_training_images_fails(change, workspace, patients):
    add_set(workspace, change, MEMORIES[change](patients["train"][:100]))
    audit = audit_set(CONFIG, workspace, change)
    assert audit.verdict == "failed"
    copying = [reason for reason in audit.reasons if "nearer to one training patient" in reason]
    assert len(copying) == 2 and "audit.max_near_ratio is 3" in copying[0]
    assert any("tells members from held-out images: AUC 0." in text for text in audit.reasons)
    assert audit.findings.near[0].share > 0.9
    assert audit.pairs[0].relative < 0.5


def test_distances_look_well_where_membership_inference_fails_a_set(workspace, patients):
    """Every image is a blend of three patients: near to each of them, and to none alone."""
    three = np.random.default_rng(0).permuted(np.tile(np.arange(TRAIN), (3, 1)), axis=1)
    blends = patients["train"][three].astype(np.float64).mean(axis=0).astype(np.uint8)
    add_set(workspace, "blends", blends)
    audit = audit_set(CONFIG, workspace, "blends")
    assert audit.findings.copies == Copies(resaved=0, held_out=0, singular=0)
    assert audit.verdict == "failed"
    assert all(reason.startswith("membership inference") for reason in audit.reasons)


def test_smooth_images_that_are_near_to_everyone_are_no_copies(workspace, patients):
    rows = np.random.default_rng(0).integers(0, VAL, (100, 6))
    smooth = patients["val"][rows].astype(np.float64).mean(axis=1).astype(np.uint8)
    add_set(workspace, "smooth", smooth)
    found = audit_set(CONFIG, workspace, "smooth").findings
    assert found.near[0].share <= found.near[0].expected_high and found.copies.resaved == 0


def test_a_few_copies_among_many_images_fail_a_set(workspace, patients):
    images = np.concatenate([patients["unseen"], noisy(patients["train"][:3, ..., ::-1])])
    add_set(workspace, "few", images)
    audit = audit_set(CONFIG, workspace, "few")
    assert audit.verdict == "failed" and len(audit.reasons) == 2
    assert "3 of 93 images are copies of training images" in audit.reasons[0]
    assert "3 of 93 images are less than half as far from one training" in audit.reasons[1]
    assert [pair.source for pair in audit.pairs if pair.is_copy] == [
        pair.source for pair in audit.pairs[:3]
    ]
    assert {pair.source for pair in audit.pairs[:3]} == {f"synthetic-{row}" for row in (90, 91, 92)}


def test_some_moved_copies_among_many_images_fail_a_set(workspace, patients):
    """Of a few members an average over all, as an AUC is, tells nothing."""
    moved = np.roll(patients["train"][:8, ..., ::-1], (1, -1), axis=(2, 3))
    add_set(workspace, "some", np.concatenate([patients["unseen"], moved]))
    audit = audit_set(CONFIG, workspace, "some")
    assert audit.verdict == "failed" and audit.findings.copies.resaved == 0
    assert any("of real images are to another, by pixels" in reason for reason in audit.reasons)
    assert not any(reason.startswith("membership") for reason in audit.reasons)


def test_few_patients_are_too_few_to_say(workspace, tmp_path, patients):
    small = Workspace.at(tmp_path)
    write_real(small.data, {"train": patients["train"], "val": patients["val"][:12]})
    add_set(small, "softmax", patients["unseen"])
    audit = audit_set(CONFIG, small, "softmax")
    assert audit.verdict == "undecided"
    assert len(audit.reasons) == 1 and "data.val_fraction" in audit.reasons[0]
    assert "held-out real images of 12 patients" in audit.reasons[0]


def test_no_held_out_image_at_all_is_undecided(workspace, tmp_path, patients):
    none = Workspace.at(tmp_path)
    write_real(none.data, {"train": patients["train"]})
    add_set(none, "softmax", patients["unseen"])
    audit = audit_set(CONFIG, none, "softmax")
    assert audit.verdict == "undecided" and not audit.findings.attacks
    assert "membership was not inferred by pixels" in audit.reasons


def test_an_audit_counts_for_its_own_version_and_for_the_thresholds_of_today(
    workspace, passed, tmp_path, patients
):
    store = Store(workspace.synthetic("softmax"))
    thresholds = CONFIG.audit
    assert why_not_passed(store, passed.set_digest, thresholds) is None
    strict = dataclasses.replace(thresholds, pass_auc=0.6, fail_auc=0.51)
    assert "its audit is undecided: " in why_not_passed(store, passed.set_digest, strict)
    other_spaces = dataclasses.replace(thresholds, spaces=("pixels", "features"))
    assert "not inferred by features" in why_not_passed(store, passed.set_digest, other_spaces)
    # the same directory with another version of the set
    learned = [Split(Store(workspace.data), "train")]
    other = Store(write_synthetic(str(tmp_path / "set"), patients["unseen"][:50], learned))
    other.write_json("audit.json", store.read_json("audit.json"))
    digest = Manifest.load(other).digest
    assert why_not_passed(other, digest, thresholds) == "it has not been audited in this version"


def test_a_repeated_audit_is_the_same_and_takes_no_time(workspace, passed, caplog):
    store = Store(workspace.synthetic("softmax"))
    before = store.read_bytes("audit.json")
    assert audit_set(CONFIG, workspace, "softmax") == passed
    assert "audited already" in caplog.text
    caplog.clear()
    assert audit_set(CONFIG, workspace, "softmax", overwrite=True) == passed
    assert "audited already" not in caplog.text and store.read_bytes("audit.json") == before
    store.write_bytes("audit.json", before[:100])
    with pytest.raises(DataError, match=r"audit\.json.*run gemix audit --overwrite"):
        audit_set(CONFIG, workspace, "softmax")
    assert audit_set(CONFIG, workspace, "softmax", overwrite=True) == passed


def test_a_set_of_unknown_origin_can_fail_and_not_pass(workspace, tmp_path, patients):
    stranger = write_synthetic(str(tmp_path / "stranger"), patients["unseen"], None)
    audit = audit_set(CONFIG, workspace, stranger)
    assert audit.verdict == "undecided" and "not on record" in audit.reasons[0]
    thief = write_synthetic(str(tmp_path / "thief"), noisy(patients["train"][:100]), None)
    audit = audit_set(CONFIG, workspace, thief)
    assert audit.verdict == "failed" and audit.findings.copies.resaved > 90


def test_what_was_learned_elsewhere_must_be_at_hand(workspace, tmp_path, patients):
    elsewhere = write_real(str(tmp_path / "other"), {"train": patients["train"][:60]}, "other")
    start = Store(tmp_path / "network")
    write_provenance(start, [Split(Store(elsewhere), "train")])
    url = str(tmp_path / "set")
    write_synthetic(url, patients["unseen"], None)
    store = Store(url)
    own = [Split(Store(workspace.data), "train")]
    write_provenance(store, own, [Provenance(start, "the start")])
    # equal images have equal checksums, so these are at hand
    assert audit_set(CONFIG, workspace, url).findings.learned_from.elsewhere == 0
    write_real(elsewhere, {"train": noisy(patients["train"][:60])}, "other")
    write_provenance(start, [Split(Store(elsewhere), "train")])
    write_provenance(store, own, [Provenance(start, "the start")])
    audit = audit_set(CONFIG, workspace, url, overwrite=True)
    assert audit.verdict == "undecided"
    assert "60 images that the generator learned from are not at hand" in audit.reasons[0]
    audit = audit_set(CONFIG, workspace, url, real=[elsewhere])
    assert audit.findings.learned_from.elsewhere == 0
    assert audit.findings.images.members == TRAIN + 60


def test_phantoms_of_the_zoo_need_not_be_at_hand(workspace, tmp_path, patients):
    """Nobody can be found out by them, and a user could not name them."""
    url, own = str(tmp_path / "set"), [Split(Store(workspace.data), "train")]
    write_synthetic(url, patients["unseen"], None)
    start = Provenance(open_pretrained("zoo:phantom64"), "the start")
    write_provenance(Store(url), own, [start])
    audit = audit_set(CONFIG, workspace, url)
    assert sum(len(table) for table in start) == 3084
    assert audit.findings.learned_from.elsewhere == 0 and audit.verdict == "passed"


def test_sets_that_cannot_be_audited_are_named(workspace, tmp_path, patients):
    with pytest.raises(DataError, match="neither a method with a finished set"):
        audit_set(CONFIG, workspace, "nothing")
    with pytest.raises(DataError, match="a set of real images"):
        audit_set(CONFIG, workspace, workspace.data)
    small = Workspace.at(tmp_path)
    write_real(small.data, {"train": patients["train"][:8]})
    manifest = Store(small.data).read_json("manifest.json")
    Store(small.data).write_json("manifest.json", manifest | {"resolution": 16})
    add_set(workspace, "onehot", patients["unseen"])
    with pytest.raises(DataError, match=r"1 x 32 x 32 pixels.*1 x 16 x 16 pixels"):
        audit_set(CONFIG, small, workspace.synthetic("onehot"))


def test_features_are_a_space_too(workspace, passed, patients):
    config = load("demo", ["audit.spaces=[features]", "metrics.extractor=timm-random:test_resnet"])
    add_set(workspace, "dirichlet", noisy(patients["train"][:60, ..., ::-1]))
    audit = audit_set(config, workspace, "dirichlet")
    assert audit.verdict == "failed" and {pair.space for pair in audit.pairs} == {"features"}
    assert audit.settings["extractor"] == "timm-random:test_resnet"


class Unready(LocalExecutor):
    def require(self, compute) -> None:
        raise ConfigError("no workers")


def test_train_classifier_warns_of_a_set_without_a_passed_audit(
    workspace, passed, patients, caplog
):
    add_set(workspace, "mirrored", patients["train"][:90, ..., ::-1])
    audit_set(CONFIG, workspace, "mirrored")
    add_set(workspace, "onehot", patients["unseen"])
    with pytest.raises(ConfigError, match="no workers"), caplog.at_level(logging.WARNING):
        caplog.clear()
        methods = ["softmax", "mirrored", "onehot"]
        train_classifiers(CONFIG, workspace, methods=methods, executor=Unready())
    warnings = [record.getMessage() for record in caplog.records if "audit" in record.getMessage()]
    assert len(warnings) == 2 and all("\n" not in text for text in warnings)
    assert "the mirrored images have no passed privacy audit: its audit is failed" in warnings[0]
    assert "not been audited in this version; run gemix audit onehot" in warnings[1]


def test_the_command_exits_with_0_for_a_pass_alone(workspace, passed, patients, capsys):
    options = ["-w", workspace.workdir, "audit.spaces=[pixels]"]
    assert audit_job.COMMAND.main(["softmax", *options]) == 0
    assert capsys.readouterr().out.startswith("softmax: passed\n  membership inference by distance")
    store = add_set(workspace, "mirrored", patients["train"][:90, ..., ::-1])
    assert audit_job.COMMAND.main(["softmax", store.url, *options]) == 1
    out, err = capsys.readouterr()
    assert f"{store.url}: failed\n  " in out and "worst pairs, which show real images: " in out
    assert f"not passed: {store.url} failed" in err and "Traceback" not in err
    assert audit_job.COMMAND.main([store.url, *options, "audit.pass_auc=2"]) == 2


def test_bad_settings_are_told_all_at_once():
    with pytest.raises(ConfigError) as caught:
        load("demo", ["audit.pass_auc=0.2", "audit.spaces=[pixel]", "audit.min_patient=3"])
    text = str(caught.value)
    assert "3 bad setting(s)" in text and "did you mean 'min_patients'" in text
    assert "did you mean 'pixels'" in text and "audit.pass_auc: given 0.2" in text
    with pytest.raises(ConfigError) as caught:
        AuditConfig(spaces=(), images=10, pass_auc=0.55)
    assert "3 bad setting(s)" in str(caught.value)


def test_the_audit_is_tagged_in_mlflow(workspace, passed):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace.workdir}/mlflow.db")
    experiment = client.get_experiment_by_name(CONFIG.tracking.experiment)
    runs = client.search_runs([experiment.experiment_id], "tags.job = 'audit'")
    tags = [run.data.tags for run in runs]
    found = [t for t in tags if t.get("digest.synthetic.audit") == passed.set_digest]
    assert found and found[-1]["gemix.audit"] == "passed"
    assert json.loads(json.dumps(found[-1]["gemix.audit.reasons"]))


def everything(folder: Path) -> bytes:
    """Return the content of all files, those of Parquet files as text too."""
    found = []
    for path in sorted(folder.iterdir()):
        found.append(path.read_bytes())
        if path.suffix == ".parquet":
            found.append(str(pq.read_table(path).to_pydict()).encode())
    return b"".join(found)


def test_an_exported_set_holds_nothing_of_a_person(workspace, passed, tmp_path):
    store = Store(workspace.synthetic("softmax"))
    store.write_bytes("config.yaml", b"data: {path: /patient-archive}")
    manifest = Manifest.load(store)
    origin = manifest.origin | {
        "synthesis": {"generator": "s3://patient-bucket/gan", "seed": 3},
        "labels": {"recall_of": "/patient-runs/real-seed0", "bias": 2.0},
    }
    dataclasses.replace(manifest, origin=origin).save(store)
    pixels = dataclasses.replace(CONFIG.metrics, extractor="timm-random:test_resnet", images=90)
    write_card(dataclasses.replace(CONFIG, metrics=pixels), workspace, "softmax")
    spec = "torchscript:/patient-models/inception.pt"
    card = read_card(store, manifest.digest)
    comparisons = [dataclasses.replace(one, extractor=spec) for one in card.comparisons]
    write_record(store, "card.json", dataclasses.replace(card, comparisons=tuple(comparisons)))
    settings = {**passed.settings, "extractor": spec}
    write_record(store, "audit.json", dataclasses.replace(passed, settings=settings))
    assert b"patient-train" in everything(Path(store.url))
    exported = export_set(CONFIG, workspace, "softmax", str(tmp_path / "out"), overwrite=False)
    for name in ("config.yaml", "card.json", "card.md"):
        store.delete(name)
    write_record(store, "audit.json", passed)
    manifest.save(store)
    assert b"patient-" not in everything(tmp_path / "out")
    assert exported.digest == passed.set_digest
    assert exported.origin["synthesis"] == {"seed": 3}
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "00000.parquet",
        *("audit.json", "card.json", "card.md", "manifest.json", "seen.parquet"),
    ]
    copied_card = read_card(Store(tmp_path / "out"), exported.digest)
    assert copied_card.comparisons[0].extractor == "torchscript:inception.pt"
    assert copied_card.audit.verdict == "passed" and copied_card.labels == {"bias": 2.0}
    text = (tmp_path / "out/card.md").read_text()
    assert "stays with their owner" in text and "which goes with the set" not in text
    # whoever gets it sees the same images and the audit, and that a record is missing
    out = Store(tmp_path / "out")
    made, copied = (read_images([one.url], "train") for one in (store, out))
    np.testing.assert_array_equal(made.images, copied.images)
    np.testing.assert_array_equal(made.soft_labels, copied.soft_labels)
    assert why_not_passed(out, exported.digest, CONFIG.audit) is None
    assert list(Provenance(out, "x")) == []
    [missing] = Provenance(out, "x").unknown
    assert "the generator of the softmax images, which its owner keeps" in missing


def test_a_set_without_a_passed_audit_is_not_exported(workspace, patients, tmp_path):
    add_set(workspace, "fresh", patients["unseen"])
    for target, words in (("fresh", "has not been audited"), (workspace.data, "only synthetic")):
        with pytest.raises(DataError, match=words):
            export_set(CONFIG, workspace, target, str(tmp_path / "out"), overwrite=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["", "/", "/inside", "/.."])
def test_a_set_is_not_exported_onto_itself(workspace, passed, place):
    store = Store(workspace.synthetic("softmax"))
    before = store.file_versions(recursive=True)
    for overwrite in (False, True):
        with pytest.raises(DataError, match="in the place of the set itself"):
            export_set(CONFIG, workspace, "softmax", store.url + place, overwrite=overwrite)
    assert store.file_versions(recursive=True) == before


def test_a_damaged_shard_is_not_exported(workspace, passed, tmp_path):
    store = Store(workspace.synthetic("softmax"))
    whole = store.read_bytes("00000.parquet")
    store.write_bytes("00000.parquet", whole[:-1] + b"?")
    try:
        with pytest.raises(DataError, match=r"00000\.parquet: its SHA-256"):
            export_set(CONFIG, workspace, "softmax", str(tmp_path / "out"), overwrite=False)
    finally:
        store.write_bytes("00000.parquet", whole)
    assert not (tmp_path / "out/manifest.json").exists()
