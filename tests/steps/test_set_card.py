"""The card of a synthetic set: what it says, and of which set."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gemix.config import PipelineConfig
from gemix.core.errors import AlreadyFinishedError, DataError
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.provenance import PROVENANCE_SHA256, write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.evaluation.image_quality.features.registry import open_extractor
from gemix.evaluation.image_quality.measure import measure
from gemix.evaluation.image_quality.real_stats import RealStats
from gemix.evaluation.label_fidelity.measure import label_fidelity
from gemix.io.audit_record import Audit, AuditedImages, AuditFindings, Copies, LearnedFrom
from gemix.io.records import write_record
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.labels import LabelConfig
from gemix.report.sections.set_cards import set_cards
from gemix.steps.sets.card import write_card
from gemix.steps.sets.curate import curate_set
from gemix.synthesis.config import SynthesisConfig
from gemix.synthesis.curation.config import CurationConfig
from gemix.synthesis.fidelity import FIDELITY, measure_set, read_fidelity
from gemix.synthesis.set_card.record import read_card
from gemix.synthesis.teacher import TeacherRow
from jobs._runtime import cli

CLASSES = ("benign", "malignant", "normal")
CONFIG = PipelineConfig.from_mapping(
    {
        "metrics": {"extractor": "timm-random:test_resnet", "images": 60, "real_images": 60},
        "synthesis": {"methods": ["softmax", "onehot"]},
    }
)
REAL = {"train": 48, "val": 30, "test": 9}
MADE = 45


def columns_of(count: int, name: str, seed: int, **more) -> dict:
    rng, labels = np.random.default_rng(seed), np.arange(count) % 3
    images = rng.normal(90 + 30 * labels[:, None, None, None], 40, (count, 1, 16, 16))
    return to_columns(
        images.clip(0, 255).astype(np.uint8),
        np.eye(3, dtype=np.float32)[labels],
        class_index=labels,
        patients=[f"{name}-{row // 2}" for row in range(count)],
        sources=[f"{name}/{row}.png" for row in range(count)],
        **more,
    )


def write_real(url: str, counts: dict[str, int] = REAL, classes=CLASSES) -> None:
    store = Store(url)
    entries = [
        write_shard(store, f"{split}-00000.parquet", columns_of(count, split, index), split)
        for index, (split, count) in enumerate(counts.items())
    ]
    origin = {"source": "phantom"}
    Manifest.of(
        entries, kind="real", classes=classes, resolution=16, channels=1, origin=origin
    ).save(store)


def write_synthetic(workspace: Workspace, method: str, *, seen: bool = False) -> Manifest:
    """A set, of whose images the last third show another class, if somebody looks."""
    store, wanted = Store(workspace.synthetic(method)), np.arange(MADE) % 3
    shown = (wanted + (np.arange(MADE) >= 30)) % 3
    more = {
        "seeds": range(MADE),
        "generator": "ab" * 32,
        "asked": np.eye(3, dtype=np.float32)[wanted],
        "seen": np.float32(0.7 * np.eye(3)[shown] + 0.1)[:, None] if seen else None,
    }
    columns = columns_of(MADE, method, seed=len(method), **more)
    entry = write_shard(store, "00000.parquet", columns, "train")
    sha256 = write_provenance(store, [Split(Store(workspace.data), "train")])
    origin = {
        "method": method,
        "labels": LabelConfig(bias=1.5).to_mapping(),
        "synthesis": SynthesisConfig().to_mapping(),
        "generator": "ab" * 32,
        "generator_kimg": 3.5,
        "precision": "float32",
        "drawn": dict.fromkeys(CLASSES, 20),
        PROVENANCE_SHA256: sha256,
    }
    manifest = Manifest.of(
        [entry], kind="synthetic", classes=CLASSES, resolution=16, channels=1, origin=origin
    )
    if seen:
        right = np.eye(3)[np.arange(90) % 3]
        real = label_fidelity(right, right)
        teacher = TeacherRow(name="seed0", seed=0, checksum="cd" * 16, real=real)
        drawn = np.full(3, 20)
        write_record(store, FIDELITY, measure_set(store, manifest, (teacher,), drawn))
    manifest.save(store)
    return manifest


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    workspace = Workspace.at(tmp_path_factory.mktemp("work"))
    write_real(workspace.data)
    write_synthetic(workspace, "softmax", seen=True)
    write_synthetic(workspace, "onehot")
    return workspace


@pytest.fixture(scope="module")
def softmax(workspace):
    return write_card(CONFIG, workspace, "softmax")


@pytest.fixture(scope="module")
def onehot(workspace):
    return write_card(CONFIG, workspace, workspace.synthetic("onehot"))


def text_of(workspace: Workspace, method: str) -> str:
    return Store(workspace.synthetic(method)).read_bytes("card.md").decode()


def test_the_record_is_read_back_as_it_was_written(softmax, workspace):
    store = Store(workspace.synthetic("softmax"))
    assert read_card(store, softmax.digest) == softmax
    assert softmax.digest == Manifest.load(store).digest
    assert read_card(store, "0" * 64) is None


def test_it_says_what_the_set_is_made_of(softmax, workspace):
    real = Manifest.load(Store(workspace.data))
    data = softmax.training_data
    assert (data.digests, data.images, data.groups) == ((real.content_digest("train"),), 48, 24)
    assert (data.unknown, data.is_drawn) == (0, True)
    assert (softmax.generator, softmax.generator_kimg) == ("ab" * 32, 3.5)
    assert [(of.name, of.images, of.drawn) for of in softmax.classes] == [
        (name, 15, 20) for name in CLASSES
    ]
    text = text_of(workspace, "softmax")
    for part in (softmax.digest, *data.digests, "ab" * 32, "| labels.bias | 1.5 |", "drawn images"):
        assert part in text


def test_it_shows_the_settings_of_its_own_sampler_alone(softmax, onehot, workspace):
    assert "labels.pair_beta" not in text_of(workspace, "softmax")
    assert "labels.bias" not in text_of(workspace, "onehot")
    assert "synthesis.seed" in text_of(workspace, "onehot")


def test_fidelity_stands_beside_its_ceiling(softmax, onehot, workspace):
    (seen,) = softmax.fidelity
    assert (seen.agreement.value, seen.ceiling.value) == (pytest.approx(2 / 3), 1)
    assert list(seen.by_class) == list(CLASSES)
    assert any("67% of the images show" in limit for limit in softmax.limits)
    assert onehot.fidelity == ()
    assert any("Nobody has looked whether the images show" in limit for limit in onehot.limits)
    assert "run `gemix train-teacher`" in text_of(workspace, "onehot")


def test_image_metrics_are_those_of_the_sets_against_both_splits(softmax, workspace):
    extractor = open_extractor(CONFIG.metrics.extractor, 16, torch.device("cpu"))
    splits = {name: read_images([workspace.data], name).images for name in ("train", "val")}
    splits["synthetic"] = read_images([workspace.synthetic("softmax")], "train").images
    features = {name: extractor(images) for name, images in splits.items()}
    pairs = [("synthetic", "train"), ("synthetic", "val"), ("val", "train")]
    assert [(one.of, one.against) for one in softmax.comparisons] == pairs
    for one in softmax.comparisons:
        assert (one.images, one.real_images) == (len(features[one.of]), len(features[one.against]))
        expected = measure(RealStats.of(features[one.against]), features[one.of], "")
        for name in ("kid", "fid", "precision", "recall", "density", "coverage"):  # of any order
            assert one.metrics[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-6)
        assert one.extractor == extractor.identity


def test_without_images_to_measure_there_are_no_metrics(onehot, workspace):
    metrics = dataclasses.replace(CONFIG.metrics, images=0)
    config = dataclasses.replace(CONFIG, metrics=metrics)
    assert write_card(config, workspace, "onehot", overwrite=True).comparisons == ()
    assert "metrics.images above 0" in text_of(workspace, "onehot")


def test_the_card_of_a_curated_set_says_what_was_left_out(workspace):
    config = dataclasses.replace(
        CONFIG, curation=CurationConfig(rules=("realism",), lowest_share=0.2)
    )
    curated = curate_set(config, workspace, "softmax")
    store = Store(workspace.synthetic("softmax"))
    parent, fidelity = Manifest.load(store), read_fidelity(store)
    card = write_card(CONFIG, workspace, "softmax-curated")
    assert card.curation == curated and (curated.images, curated.kept) == (45, 36)
    assert [(of.images, of.drawn) for of in card.classes] == [(12, 20)] * 3
    # the teacher's view of the images that are left
    left = read_fidelity(Store(workspace.synthetic("softmax-curated")))
    assert left.digest == card.digest and left.accepted["normal"].value == 12 / 20
    assert left.teachers[0].real == fidelity.teachers[0].real
    text = text_of(workspace, "softmax-curated")
    assert text.startswith("# Synthetic images: softmax, curated\n") and parent.digest in text
    assert "36 of 45 images were kept" in text and "benign 12 of 15" in text
    assert "| realism | far from all real images, by features | 9 | 9 |" in text
    assert "Curation" not in text_of(workspace, "onehot")


def test_a_metric_that_fails_is_told_and_ends_nothing(workspace, tmp_path):
    few = Workspace.at(tmp_path / "few")
    write_real(few.data, {"train": 45, "val": 6, "test": 6})
    card = write_card(CONFIG, few, workspace.synthetic("softmax"), overwrite=True)
    (against_val,) = (one for one in card.comparisons if (one.of, one.against)[1] == "val")
    assert against_val.metrics == {} and "6 real" in against_val.problem
    assert "6 real" in text_of(workspace, "softmax")
    # the generator learned from other images than those of this work directory
    assert card.training_data.source is None


def test_an_audit_counts_for_the_version_that_was_audited(workspace):
    store = Store(workspace.synthetic("softmax"))
    digest = Manifest.load(store).digest
    images = dict.fromkeys((field.name for field in dataclasses.fields(AuditedImages)), 9)
    findings = AuditFindings(
        images=AuditedImages(**images),
        learned_from=LearnedFrom(is_on_record=True, elsewhere=0, unknown=()),
        copies=Copies(resaved=0, held_out=0, singular=0),
        near=(),
        attacks=(),
    )
    for audited, verdict in ((digest, "passed"), (digest, "failed"), ("0" * 64, None)):
        audit = Audit(
            set_digest=audited,
            verdict=verdict or "passed",
            reasons=("No copy.",),
            findings=findings,
            settings={},
            pairs=(),
        )
        write_record(store, "audit.json", audit)
        card = write_card(CONFIG, workspace, "softmax", overwrite=True)
        assert (card.audit and card.audit.verdict) == verdict
        text = text_of(workspace, "softmax")
        assert ("run `gemix audit`" in text) == (verdict is None)
        assert ("did not pass: failed" in text) == (verdict == "failed")
    store.delete("audit.json")


def evaluated(workspace: Workspace, digest: str) -> None:
    """Results of classifiers of softmax images alone, of the set of this digest."""
    rates = {"macro_f2": 0.5, "fnr": 0.4, "macro_f1": 0.5, "accuracy": 0.6}
    row = {"seeds": 1, "confusion": [], "intervals": {}, "per_class": {}}
    difference = {"macro_f2": {"delta": -0.3, "low": -0.4, "high": -0.2}}
    results = [
        row | {"method": "real", "difference_to_real": {}} | rates | {"macro_f2": 0.8},
        row | {"method": "softmax-only", "difference_to_real": difference} | rates,
    ]
    Store(workspace.evaluation).write_json(
        "evaluation.json", {"results": results, "test": {"images": 9, "digest": "ef" * 32}}
    )
    listed = {"val_macro_f2": 0.5, "val_loss": 1.0, "seed": 0}
    names = {"real-seed0": "real", "softmax-only-seed0": "softmax-only"}
    classifiers = Store(workspace.classifiers)
    classifiers.write_json(
        "classifiers.json", [{"name": k, "method": v} | listed for k, v in names.items()]
    )
    classifiers.write_json("softmax-only-seed0/model.json", {"training_digest": digest})


def test_synthetic_on_real_stands_beside_real_on_real(workspace):
    evaluated(workspace, Manifest.load(Store(workspace.synthetic("softmax"))).digest)
    card = write_card(CONFIG, workspace, "softmax", overwrite=True)
    first = card.transfer.rates[0]
    assert (first.rate, first.real, first.synthetic) == ("macro_f2", 0.8, 0.5)
    line = "| macro-F2 | 0.800 | 0.500 | −0.300 (−0.400 to −0.200) |"
    assert line in text_of(workspace, "softmax")
    (row,) = set_cards({"softmax": workspace.synthetic("softmax")}).rows
    assert (row.transfer, row.audit, row.agreement[0]) == (("0.500", "0.800"), None, "66.7%")


def test_rates_of_another_version_of_the_set_are_left_out(workspace, caplog):
    evaluated(workspace, "0" * 64)
    assert write_card(CONFIG, workspace, "softmax", overwrite=True).transfer is None
    assert "another version of the images" in caplog.text
    assert "--synthetic-only" in text_of(workspace, "softmax")


def test_the_report_leaves_out_a_card_of_another_version(softmax, workspace, tmp_path):
    store = Store(tmp_path)
    Manifest.load(Store(workspace.synthetic("onehot"))).save(store)
    assert set_cards({"onehot": str(tmp_path)}) is None
    store.write_bytes("card.json", Store(workspace.synthetic("softmax")).read_bytes("card.json"))
    changed = store.read_json("card.json") | {"digest": "0" * 64}
    store.write_json("card.json", changed)
    assert set_cards({"onehot": str(tmp_path)}) is None
    store.write_json("card.json", {"digest": 3})
    with pytest.raises(DataError, match=r"card.json: .*gemix card --overwrite"):
        set_cards({"onehot": str(tmp_path)})


def test_what_cannot_have_a_card_is_refused(softmax, workspace, tmp_path):
    with pytest.raises(AlreadyFinishedError, match="--overwrite"):
        write_card(CONFIG, workspace, "softmax")
    with pytest.raises(DataError, match="a set of real images"):
        write_card(CONFIG, workspace, workspace.data)
    with pytest.raises(DataError, match="neither a method with a finished set"):
        write_card(CONFIG, workspace, "dirichlet")
    other = Workspace.at(tmp_path)
    write_real(other.data, classes=("a", "b", "c"))
    with pytest.raises(DataError, match="have \\['a', 'b', 'c'\\]"):
        write_card(CONFIG, other, workspace.synthetic("softmax"))


def test_the_command_describes_every_finished_set(workspace, capsys):
    settings = ["metrics.images=0", "synthesis.methods=[softmax,onehot,dirichlet]"]
    assert cli.main(["card", "-w", workspace.workdir, "--overwrite", *settings]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [f"{workspace.synthetic(name)}/card.md" for name in ("softmax", "onehot")]
    assert cli.main(["card", "-w", workspace.workdir, "none", *settings]) == 1
    assert "none: neither a method" in capsys.readouterr().err
