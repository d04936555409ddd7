"""A curated set: what is left, what is on record, and what an audit says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gemix.config import load
from gemix.core.errors import AlreadyFinishedError, ConfigError, DataError
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.provenance import Provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.sets.audit import audit_set
from gemix.steps.sets.curate import curate_set, describe
from gemix.synthesis.curation.record import read_curation
from jobs import curate as curate_job
from tests.steps.audit_sets import phantoms, write_real, write_synthetic

TRAIN, VAL, MADE = 150, 20, 40
RULES = [
    "curation.rules=[memorized,near_duplicate]",
    "curation.near_quantile=0",
    "metrics.extractor=timm-random:resnet10t",
]
CONFIG = load("demo", ["audit.spaces=[pixels]", *RULES])
COPY, DOUBLE = 3, 9  # of the images: of a training image, and of image 2


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Iterator[Workspace]:
    workspace = Workspace.at(tmp_path_factory.mktemp("curated"))
    images = phantoms(0, TRAIN + VAL + MADE)
    train, val, made = np.split(images, [TRAIN, TRAIN + VAL])
    made[COPY], made[DOUBLE] = train[5], made[2]
    write_real(workspace.data, {"train": train, "val": val})
    learned = [Split(Store(workspace.data), "train")]
    write_synthetic(workspace.synthetic("softmax"), made, learned, "f" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace.workdir}/mlflow.db")
        yield workspace


@pytest.fixture(scope="module")
def record(workspace):
    return curate_set(CONFIG, workspace, "softmax")


def curated(workspace: Workspace) -> Store:
    return Store(workspace.synthetic("softmax-curated"))


def test_what_rules_remove_is_left_out_and_all_else_stays_as_it_was(workspace, record):
    before = read_images([workspace.synthetic("softmax")])
    after = read_images([curated(workspace).url])
    rows = [row for row in range(MADE) if row not in (COPY, DOUBLE)]
    assert np.array_equal(after.images, before.images[rows])
    assert np.array_equal(after.soft_labels, before.soft_labels[rows])
    assert after.sources == tuple(before.sources[row] for row in rows)
    assert record == read_curation(curated(workspace))
    assert [(c.rule, c.removed, c.alone) for c in record.rules] == [
        ("memorized", 1, 1),
        ("near_duplicate", 1, 1),
    ]
    assert (record.images, record.kept) == (MADE, MADE - 2)
    assert sum(one.kept for one in record.by_class.values()) == MADE - 2
    assert f"{MADE - 2} of {MADE} images kept" in describe(record)


def test_the_set_is_bound_to_its_parent_and_to_whom_it_was_learned_from(workspace, record):
    store = curated(workspace)
    manifest = Manifest.load(store)
    assert manifest.digest == record.digest
    assert manifest.origin["generator"] == "f" * 64
    assert manifest.origin["curation"] == {
        "parent": Manifest.load(Store(workspace.synthetic("softmax"))).digest,
        "memorized": 1,
        "near_duplicate": 1,
    }
    learned = {name for table in Provenance(store, "x") for name in table["group"].to_pylist()}
    assert len(learned) == TRAIN


def test_an_audit_does_not_pass_what_distances_were_taken_out_of(workspace, record):
    audit = audit_set(CONFIG, workspace, "softmax-curated")
    assert audit.findings.removed_near_training == 1
    assert audit.verdict == "undecided"
    assert any("audit the set that it was taken from" in reason for reason in audit.reasons)


def test_the_same_curation_is_not_done_again_and_another_wants_overwrite(workspace, record):
    store = curated(workspace)
    written = store.read_bytes("manifest.json")
    assert curate_set(CONFIG, workspace, "softmax") == record
    assert store.read_bytes("manifest.json") == written
    other = dataclasses.replace(
        CONFIG, curation=dataclasses.replace(CONFIG.curation, rules=("near_duplicate",))
    )
    with pytest.raises(AlreadyFinishedError, match="--overwrite"):
        curate_set(other, workspace, "softmax")
    again = curate_set(other, workspace, "softmax", overwrite=True)
    assert again.kept == MADE - 1
    assert Manifest.load(store).origin["removed_near_training"] == 0
    assert curate_set(CONFIG, workspace, "softmax", overwrite=True) == record


def test_what_cannot_be_curated_is_refused_before_anything_is_written(workspace, tmp_path: Path):
    with pytest.raises(DataError, match="real images"):
        curate_set(CONFIG, workspace, workspace.data)
    learned = [Split(Store(workspace.data), "val")]
    leaky = write_synthetic(str(tmp_path / "leaky"), phantoms(200, 4), learned)
    with pytest.raises(DataError, match="val"):
        curate_set(CONFIG, workspace, leaky)
    bare = write_synthetic(str(tmp_path / "bare"), phantoms(200, 4), None)
    needs = dataclasses.replace(
        CONFIG, curation=dataclasses.replace(CONFIG.curation, rules=("discriminator",))
    )
    with pytest.raises(ConfigError, match="leave the rule out"):
        curate_set(needs, workspace, bare)
    assert not Path(f"{bare}-curated").exists() and not Path(f"{leaky}-curated").exists()


def test_the_command_says_what_it_removed(workspace, record, capsys):
    arguments = ["softmax", "-c", "demo", "-w", workspace.workdir, "audit.spaces=[pixels]"]
    assert curate_job.COMMAND.main([*arguments, *RULES]) == 0
    shown = capsys.readouterr().out
    assert "softmax-curated: 38 of 40 images kept" in shown
    assert "memorized: 1 removed (1 by itself), a copy of a training image" in shown
