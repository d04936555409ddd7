"""The comparison of methods: what it finds, what it keeps, what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from scipy import stats
from sklearn.metrics import fbeta_score, roc_auc_score

from gemix.classifier.bundle import WEIGHTS
from gemix.comparison.plan import Unit
from gemix.config import PipelineConfig
from gemix.core.errors import ConfigError, DataError, GemixError
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.provenance import PROVENANCE_SHA256, write_provenance
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.reading import read_images
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.comparison_record import read_comparison
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.compare.arrays import read_array
from gemix.steps.compare.images import TrainingSets
from gemix.steps.compare.runs import log_trainings
from gemix.steps.compare.sets import SetDirectories
from gemix.steps.compare.statistics import compare_threshold, move_threshold
from gemix.steps.compare.step import compare
from gemix.steps.compare.tables import rows_of, text
from gemix.steps.compare.training import Trained
from gemix.steps.report import build_report
from gemix.tracking.mlflow_run import Run

CLASSES = ("benign", "malignant", "normal")
METHODS = ("real", "real+cutmix", "softmax", "softmax+pretrain+hard")


def write_set(
    url: str,
    splits: dict[str, int],
    *,
    kind: str = "real",
    seed: int = 0,
    smooth: float = 0.2,
    contrast: float = 70,
    origin: dict[str, str] | None = None,
    classes: tuple[str, ...] = CLASSES,
    patients: Callable[[str, int], str] = lambda split, index: f"{split}-{index // 2}",
) -> None:
    """A set of noisy images with a faint spot whose place is the class, 2 images a patient.

    Args:
        smooth: of the labels of synthetic images, label smoothing.
        contrast: of the spot, in grey levels; the noise has 40.
        classes: in the order of the set's labels.
    """
    store, rng, entries = Store(url), np.random.default_rng(seed), []
    for split, count in splits.items():
        labels = np.arange(count) // 2 % 3
        images = rng.normal(110, 40, size=(count, 1, 16, 16))
        for image, label in zip(images, labels, strict=True):
            if label < 2:
                image[0, 5:11, 2 + 8 * label : 6 + 8 * label] += contrast
        soft = np.eye(3)[labels]
        if kind == "synthetic":
            soft = (1 - smooth) * soft + smooth / 3
        soft = soft[:, [CLASSES.index(name) for name in classes]]
        columns = to_columns(
            images.clip(0, 255).astype(np.uint8),
            soft,
            class_index=soft.argmax(axis=1),
            patients=[f"{kind}-{patients(split, index)}" for index in range(count)],
            sources=[f"{split}/{index}.png" for index in range(count)],
            seeds=range(count) if kind == "synthetic" else None,
            generator="ab" * 16 if kind == "synthetic" else None,
            asked=soft if kind == "synthetic" else None,
        )
        entries.append(write_shard(store, f"{split}-00000.parquet", columns, split))
    Manifest.of(
        entries, kind=kind, classes=classes, resolution=16, channels=1, origin=origin or {}
    ).save(store)


def configured(**compare_settings) -> PipelineConfig:
    return PipelineConfig.from_mapping(
        {
            "classifier": {"model": "test_resnet", "epochs": 2, "batch": 12, "lr": 3e-3},
            "compare": {"methods": METHODS, "seeds": 2, **compare_settings},
            "compute": {"cpus_per_worker": 1, "workers": 1, "gpus_per_worker": 0},
        }
    )


def workspace_at(folder) -> Workspace:
    workspace = Workspace.at(folder)
    write_set(workspace.data, {"train": 48, "val": 36, "test": 60})
    write_set(workspace.synthetic("softmax"), {"train": 48}, kind="synthetic", seed=1)
    return workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return workspace_at(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def compared(workspace) -> dict:
    return compare(configured(), workspace)


def by_method(results: dict, block: int = 0) -> dict[str, dict]:
    return {row["method"]: row for row in results["blocks"][block]["methods"]}


def trainings(workspace: Workspace) -> dict[str, float]:
    """When each training was finished, by address."""
    store = Store(workspace.comparison)
    return {
        name.split("/")[1]: store.filesystem.get_file_info(store.path(name)).mtime_ns
        for name in store.list(recursive=True)
        if name.endswith("record.json")
    }


def test_every_method_is_scored_by_what_its_trainings_predict(compared, workspace):
    test = read_images([workspace.data], "test")
    found = by_method(compared)
    assert list(found) == ["real", "threshold moved", *METHODS[1:]]
    for method in METHODS:
        rows = [
            read_array(
                Store(workspace.comparison) / f"units/{address}", compared["predictions_file"]
            )
            for address in found[method]["predictions"]
        ]
        assert len(rows) == found[method]["trainings"] == 2
        f2 = [fbeta_score(test.labels, r.argmax(axis=1), beta=2, average="macro") for r in rows]
        area = [roc_auc_score(test.labels, r, multi_class="ovr") for r in rows]
        assert found[method]["rates"]["macro_f2"] == pytest.approx(np.mean(f2))
        assert found[method]["deviations"]["macro_f2"] == pytest.approx(np.std(f2, ddof=1))
        assert found[method]["rates"]["macro_auroc"] == pytest.approx(np.mean(area))
        assert found[method]["steps"] == 2 * 48 / 12
    assert found["softmax"]["synthetic_images"] == 48
    assert found["softmax"]["real_exposures"] == pytest.approx(1.0)
    assert found["real"]["real_exposures"] == pytest.approx(2.0)
    assert json.loads(Store(workspace.comparison).read_bytes("comparison.json")) == compared


def test_the_threshold_row_misses_no_more_and_ranks_alike(compared):
    found = by_method(compared)
    moved, real = found["threshold moved"]["rates"], found["real"]["rates"]
    assert moved["missed_disease_rate"] <= real["missed_disease_rate"]
    assert "macro_auroc" not in moved  # which does not depend on a threshold
    assert "finding" not in found["threshold moved"] and "finding" not in found["real"]
    assert list(found["softmax"]["differences_to_controls"]) == ["real+cutmix"]
    assert found["real+cutmix"]["differences_to_controls"] == {}


def test_a_lower_threshold_is_compared_with_the_same_trainings(workspace):
    """Where no prediction changes there is no difference, and no error of other trainings."""
    test = read_images([workspace.data], "test")
    rows = np.random.default_rng(0).dirichlet([1, 1, 1], (3, len(test)))
    found = compare_threshold(test, rows, rows.argmax(axis=2), normal=2, seed=0)
    for name, difference in found.differences.items():
        assert (difference.delta, difference.low, difference.high) == (0, 0, 0), name
    more = compare_threshold(
        test, rows, move_threshold(rows[0], 2, 0.2)[None].repeat(3, 0), normal=2, seed=0
    )
    assert more.rates["missed_disease_rate"] < found.rates["missed_disease_rate"]


def test_tables_say_the_same(compared, workspace):
    header, rows = rows_of(compared["blocks"][0])
    assert header[:3] == ["method", "macro-F2", "macro-FNR"] and len(rows) == 5
    assert {"steps", "real exposures", "p (Holm)"} < set(header)
    store = Store(workspace.comparison)
    for ending in ("md", "csv", "tex"):
        table = store.read_bytes(f"tables/test_resnet-1.{ending}").decode()
        assert f"{by_method(compared)['softmax']['rates']['macro_f2']:.3f}" in table
    assert "softmax+pretrain+hard" in text(compared["blocks"][0])
    rates = {name: row["rates"] for name, row in by_method(compared).items()}
    second = list(csv.reader(io.StringIO(store.read_bytes("tables/paper-table-2.csv").decode())))
    wanted = ["accuracy", "macro_f1", "macro_precision", "macro_recall", "macro_f2", "fnr"]
    assert {tuple(row[:2]): row[2:] for row in second[1:]} == {
        ("test_resnet", name): [f"{rates[name][key]:.3f}" for key in wanted] for name in METHODS
    }
    first = store.read_bytes("tables/paper-table-1.tex").decode()
    assert first.startswith(r"\begin{tabular}{llrrrrrrrr}") and first.count("test\\_resnet") == 3


def test_weights_go_and_predictions_stay(compared, workspace):
    names = Store(workspace.comparison).list(recursive=True)
    assert not any(name.endswith(WEIGHTS) for name in names)
    assert sum(name.endswith(compared["predictions_file"]) for name in names) == 8


def test_a_finished_comparison_trains_nothing_and_an_added_method_itself_alone(compared, workspace):
    before = trainings(workspace)
    again = compare(configured(), workspace)
    assert trainings(workspace) == before
    assert again["blocks"] == compared["blocks"]
    assert again["test_openings"] == compared["test_openings"] + 1
    more = compare(configured(methods=(*METHODS, "softmax+smoothed")), workspace)
    after = trainings(workspace)
    assert before.items() < after.items() and len(after) == len(before) + 2
    assert by_method(more)["softmax"]["rates"] == by_method(compared)["softmax"]["rates"]


def test_the_same_settings_elsewhere_give_the_same_table(compared, tmp_path):
    workspace = workspace_at(tmp_path)
    kept = compare(configured(keep_weights=True), workspace)
    assert kept["blocks"][0]["methods"][0]["rates"] == by_method(compared)["real"]["rates"]
    names = Store(workspace.comparison).list(recursive=True)
    assert sum(name.endswith(WEIGHTS) for name in names) == 8


def test_fractions_of_the_patients_and_equal_exposures(workspace):
    settings = {"fractions": (0.5, 1.0), "draws": 2}
    settings["methods"] = ("real", "repeated", "softmax", "softmax+pretrain")
    results = compare(configured(**settings, budget="exposures", ratio=0.5, seeds=1), workspace)
    half, whole = results["blocks"]
    assert (half["patients"], half["draws"], half["images"]) == (12, 2, 24)
    assert (whole["patients"], whole["draws"], whole["images"]) == (24, 1, 48)
    found = by_method(results)
    assert found["softmax"]["synthetic_images"] == 12
    assert found["real"]["real_exposures"] == found["softmax"]["real_exposures"] == 2
    assert found["softmax+pretrain"]["real_exposures"] == 2
    assert found["softmax+pretrain"]["steps"] == 2 * found["real"]["steps"]
    assert found["repeated"]["real_exposures"] == 3
    assert found["real"]["trainings"] == 2
    # one draw and one seed say nothing of others
    assert "one training of each" in by_method(results, 1)["softmax"]["finding"]


def test_a_training_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    workspace = workspace_at(tmp_path)
    from gemix.steps.compare import training

    real_train = training.train

    def train(images, validation, config, *args, **kwargs):
        if config.recipe == "pretrain" and config.seed == 1:
            raise GemixError("test_resnet: the loss is nan")
        return real_train(images, validation, config, *args, **kwargs)

    monkeypatch.setattr(training, "train", train)
    results = compare(configured(), workspace)
    found = by_method(results)
    assert found["softmax+pretrain+hard"]["failure"] == "test_resnet: the loss is nan"
    assert found["softmax"]["failure"] is None
    addresses = trainings(workspace)
    monkeypatch.undo()
    repaired = by_method(compare(configured(), workspace))  # a failure is not kept
    assert repaired["softmax+pretrain+hard"]["failure"] is None
    assert addresses.items() < trainings(workspace).items()
    assert "failed: test_resnet: the loss is nan" in str(rows_of(results["blocks"][0]))


def test_without_a_control_that_failed_nothing_helps(tmp_path, monkeypatch):
    workspace = workspace_at(tmp_path)
    from gemix.steps.compare import training

    real_train = training.train

    def train(images, validation, config, *args, **kwargs):
        if "cutmix" in config.augment:
            raise RuntimeError("out of memory")
        return real_train(images, validation, config, *args, **kwargs)

    monkeypatch.setattr(training, "train", train)
    found = by_method(compare(configured(methods=METHODS[:3]), workspace))
    assert found["real+cutmix"]["failure"] == "out of memory"
    assert not found["softmax"]["helps"]


def test_a_test_set_that_was_changed_is_predicted_by_new_trainings(tmp_path):
    """Weights are gone after the test; what they predicted was of other images."""
    workspace = workspace_at(tmp_path)
    few = configured(methods=("real", "real+cutmix"), seeds=1)
    first = compare(few, workspace)
    write_set(workspace.data, {"train": 48, "val": 36, "test": 66})
    again = compare(few, workspace)
    assert again["test"]["images"] == 66 and first["test"]["images"] == 60
    assert again["predictions_file"] != first["predictions_file"]
    assert by_method(again)["real"]["predictions"] == by_method(first)["real"]["predictions"]


def test_patients_that_a_draw_leaves_out_are_a_ceiling(workspace):
    settings = {"methods": ("real", "softmax", "held-back"), "draws": 2, "seeds": 1, "ratio": 0.5}
    results = compare(configured(**settings, fractions=(0.5,)), workspace)
    found = by_method(results)
    assert found["held-back"]["synthetic_images"] == found["softmax"]["synthetic_images"] == 12
    assert found["held-back"].get("generator_patients") is None
    with pytest.raises(ConfigError, match="leaves out nobody"):
        compare(configured(**settings), workspace)


def test_draws_that_are_no_draws_are_refused(workspace):
    with pytest.raises(ConfigError, match=r"0\.99 of 24 training patients gives 1 different draw"):
        compare(configured(fractions=(0.99,), draws=3), workspace)


def test_a_generator_that_knows_more_patients_is_told(workspace):
    """A set of a generator of all patients, beside a draw of half of them."""
    learned = [Split(Store(workspace.data), "train")]
    sha256 = write_provenance(Store(workspace.synthetic("shared")), learned)
    write_set(
        workspace.synthetic("shared"),
        {"train": 24},
        kind="synthetic",
        origin={PROVENANCE_SHA256: sha256},
    )
    settings = {"methods": ("real", "shared"), "fractions": (0.5,), "draws": 2, "seeds": 1}
    results = compare(configured(**settings), workspace)
    assert by_method(results)["shared"]["generator_patients"] == 24
    _, rows = rows_of(results["blocks"][0])
    assert rows[-1][-1].endswith("generator of 24 patients")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> list[str]:
    """Sets of three generators outside the work directory; the third has another class order."""
    urls = []
    for seed, classes in enumerate((CLASSES, CLASSES, ("normal", "benign", "malignant"))):
        urls.append(Workspace.at(tmp_path_factory.mktemp("partner")).synthetic("softmax"))
        more = {"seed": 10 + seed, "classes": classes, "origin": {"generator": f"{seed:032x}"}}
        write_set(urls[-1], {"train": 36 + 6 * seed}, kind="synthetic", **more)
    return urls


def test_sets_outside_the_work_directory_are_those_of_several_generators(
    compared, workspace, elsewhere
):
    settings = {"methods": ("real", "cgan"), "seeds": 3}
    settings["sets"] = tuple(f"cgan={url}" for url in elsewhere)
    results = compare(configured(**settings), workspace)
    row = by_method(results)["cgan"]
    assert (row["generators"], row["over_generators"], row["synthetic_images"]) == (3, True, 36)
    assert by_method(compared)["softmax"]["over_generators"] is False
    found = row["differences"]["macro_f2"]
    right = stats.t.cdf(-found["delta"] / found["error"], found["df"] or np.inf)
    assert found["not_above_zero"] == pytest.approx(right)
    header, rows = rows_of(results["blocks"][0])
    assert rows[-1][header.index("P(not better)")] == f"{right:.3f}"
    assert rows[-1][-1].endswith("intervals over 3 generators")
    _, rows = rows_of(compared["blocks"][0])
    assert "1 generator, the intervals do not cover others" in str(rows)
    # as the paper's Table 1: its baseline beside each other method
    before = trainings(workspace)
    compare(configured(**settings, baseline="cgan"), workspace)
    assert trainings(workspace) == before
    table = Store(workspace.comparison).read_bytes("tables/paper-table-1.md").decode()
    assert "| cgan: accuracy | cgan: macro-F1 |" in table and "| test_resnet | real |" in table


def test_classes_of_a_set_in_another_order_are_matched_by_name(workspace, elsewhere, tmp_path):
    """The same images with the same labels, whatever the order that they were written in."""
    write_set(str(tmp_path), {"train": 48}, kind="synthetic", seed=12)
    found = {}
    for url in (elsewhere[2], str(tmp_path)):
        directories = SetDirectories(names=("made",), shared={"made": (url,)})
        sets = TrainingSets(configured().compare, workspace.data, directories)
        unit = Unit(method="made+asked", model="test_resnet", fraction=1.0, draw=0, seed=0)
        found[url] = sets.of(unit).images
    ours, theirs = found.values()
    assert (ours.images == theirs.images).all() and ours.classes == CLASSES
    assert (ours.soft_labels == theirs.soft_labels).all()
    assert (ours.labels == theirs.labels).all() and set(ours.labels[48:]) == {0, 1, 2}
    assert ours.digest != theirs.digest


def test_sets_outside_the_work_directory_are_checked(workspace, elsewhere, tmp_path):
    def tried(*urls: str, **more):
        settings = {"methods": ("real", "made"), "sets": [f"made={url}" for url in urls]}
        compare(configured(**settings | more), workspace)

    with pytest.raises(DataError, match=r"made=.*nowhere: no finished set"):
        tried(str(tmp_path / "nowhere"))
    other = str(tmp_path / "other")
    write_set(other, {"train": 6}, kind="synthetic", origin={"generator": f"{0:032x}"})
    with pytest.raises(ConfigError, match="two of them are of the same generator"):
        tried(elsewhere[0], other)
    with pytest.raises(ConfigError, match=r"seeds.*a multiple of 3, the generators of made"):
        tried(*elsewhere, seeds=4)
    with pytest.raises(ConfigError, match="name=directory, the name a word other than real"):
        configured(sets=["held-back=/x"])
    strange = str(tmp_path / "strange")
    write_set(strange, {"train": 6}, kind="synthetic")
    text = Store(strange).read_bytes("manifest.json").decode().replace("malignant", "cancer")
    Store(strange).write_bytes("manifest.json", text.encode())
    with pytest.raises(ConfigError, match=r"made in .*strange has classes \['benign', 'cancer'"):
        tried(strange)
    # images of another site's scans are what is learned from: here they are those of the test
    copy = str(tmp_path / "copy")
    write_set(copy, {"train": 60}, patients=lambda split, index: f"test-{index // 2}")
    with pytest.raises(DataError, match=r"share 30 groups"):
        tried(copy)


def test_each_training_is_an_mlflow_run_below_that_of_the_comparison(compared, workspace):
    client = MlflowClient(f"sqlite:///{workspace.workdir}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(experiments, "params.method = 'softmax+pretrain+hard'")
    assert len(found) == 2  # though the comparison was run several times
    row = by_method(compared)["softmax+pretrain+hard"]
    rates = [run.data.metrics["test_macro_f2"] for run in found]
    assert np.mean(rates) == pytest.approx(row["rates"]["macro_f2"])
    parents = {run.data.tags["mlflow.parentRunId"] for run in found}
    assert {client.get_run(one).data.tags["job"] for one in parents} == {"compare"}
    assert {run.data.params["seed"] for run in found} == {"0", "1"}
    assert "val_macro_f2" in found[0].data.metrics


def test_an_mlflow_store_that_is_away_costs_nothing(workspace, caplog):
    test = read_images([workspace.data], "test")
    unit = Unit(method="real", model="test_resnet", fraction=1.0, draw=0, seed=0)
    run = Run("http://127.0.0.1:9", "no-run", "x", workspace.workdir)
    log_trainings(run, workspace, {unit: Trained(failure="the loss is nan")}, {}, test, 2)
    assert "runs below this one are not logged" in caplog.text


def test_folds_are_pooled_and_each_patient_is_tested_once(workspace, tmp_path):
    other, pooled = Workspace.at(tmp_path / "fold1"), Workspace.at(tmp_path / "pooled")
    splits = {"train": 24, "val": 12, "test": 30}
    write_set(other.data, splits, seed=7, patients=lambda split, index: f"{split}-{index // 2}b")
    settings = {"methods": ("real", "real+cutmix")}
    first, second = (compare(configured(**settings), place) for place in (workspace, other))
    settings["folds"] = (workspace.workdir, other.workdir)
    results = compare(configured(**settings), pooled)
    found, labels = by_method(results), []
    predicted = [[], []]
    for place, record in ((workspace, first), (other, second)):
        labels.append(read_images([place.data], "test").labels)
        for rows, address in zip(
            predicted, by_method(record)["real+cutmix"]["predictions"], strict=True
        ):
            store = Store(place.comparison) / f"units/{address}"
            rows.append(read_array(store, record["predictions_file"]).argmax(axis=1))
    f2 = [
        fbeta_score(np.concatenate(labels), np.concatenate(rows), beta=2, average="macro")
        for rows in predicted
    ]
    assert found["real+cutmix"]["rates"]["macro_f2"] == pytest.approx(np.mean(f2))
    assert list(found) == ["real", "real+cutmix"]
    assert results["test"]["images"] == 90 and results["test"]["groups"] == 45
    assert results["blocks"][0]["patients"] == 18
    assert "finding" in found["real+cutmix"] and text(results["blocks"][0])
    header, _ = rows_of(results["blocks"][0])
    assert "sensitivity at equal specificity" not in header
    assert read_comparison(Store(pooled.comparison)).blocks[0].methods[1].method == "real+cutmix"

    page = Path(build_report(configured(**settings), pooled)).read_text()
    assert "The test sets of 2 folds are pooled" in page and "90 images of 45 patients" in page
    assert f"{found['real+cutmix']['rates']['macro_f2']:.3f}" in page
    assert f"{Path(workspace.workdir).name}, fold1." in page
    assert "the step has not run" not in page

    def refused(said: str, **changes):
        with pytest.raises(GemixError, match=said):
            compare(configured(**settings | changes), pooled)

    refused("softmax with 1 draw.* run gemix compare there", methods=("real", "softmax"))
    refused(r"3 seed\(s\); run gemix compare there", seeds=3)
    refused("has not compared test_resnet at the fraction 0.5", fractions=(0.5,))
    record = Store(other.comparison).read_json("comparison.json")
    record["blocks"][0]["methods"][-1]["retrained"] = True
    Store(other.comparison).write_json("comparison.json", record)
    refused(r"real\+cutmix has compare\.generator=retrained there")
    record["blocks"][0]["methods"][-1]["retrained"] = False
    Store(other.comparison).write_json("comparison.json", record)
    refused("no finished comparison", folds=(workspace.workdir, str(tmp_path / "fold2")))
    refused("is one of them", folds=(workspace.workdir, pooled.workdir))
    refused("two or more, or none", folds=(workspace.workdir,))
    shutil.copytree(workspace.workdir, tmp_path / "same")
    refused(r"is tested in .* and in .*same", folds=(workspace.workdir, str(tmp_path / "same")))
    manifest = Manifest.load(Store(other.data))
    dataclasses.replace(manifest, preprocessing={"folds": 3, "fold": 1}).save(Store(other.data))
    refused("fold 0 of 3 is not among them", folds=(other.workdir, workspace.workdir))


def test_trainings_of_different_lengths_are_refused(workspace):
    config = configured()
    stopping = dataclasses.replace(config.classifier, early_stopping=3)
    with pytest.raises(ConfigError, match=r"early_stopping=3: .*same budget; set it to null"):
        compare(dataclasses.replace(config, classifier=stopping), workspace)


def test_a_missing_set_and_a_leak_are_refused(tmp_path):
    workspace = workspace_at(tmp_path)
    with pytest.raises(DataError, match=r"onehot: no finished synthetic set"):
        compare(configured(methods=("real", "onehot")), workspace)
    repeated = configured(methods=("real", "repeated"), budget="exposures")
    with pytest.raises(ConfigError, match="'repeated' shows real images as often"):
        compare(repeated, workspace)
    with pytest.raises(ConfigError, match="'softmax\\+mix' trains as 'softmax' does"):
        compare(configured(methods=("real", "softmax", "softmax+mix")), workspace)
    with pytest.raises(ConfigError, match="'repeated' trains as 'real' does"):
        compare(configured(methods=("real", "repeated", "softmax")), workspace)
    leaking = Workspace.at(tmp_path / "leak")
    splits = {"train": 48, "val": 36, "test": 36}
    write_set(leaking.data, splits, patients=lambda split, index: f"p{index // 2}")
    with pytest.raises(DataError, match=r"data\.allow_overlap"):
        compare(configured(methods=("real", "real+cutmix")), leaking)


def test_a_network_whose_features_cannot_be_mixed_is_refused_before_any_training(workspace):
    methods = ("real", "real+manifold-mixup")
    with pytest.raises(ConfigError, match=r"pit_ti_224: its features cannot be mixed"):
        compare(configured(methods=methods, models=("test_resnet", "pit_ti_224")), workspace)


def test_a_recipe_of_a_method_frees_it_from_that_of_the_classifier(tmp_path):
    """classifier.recipe=weight does not go with CutMix; the recipe of a method does."""
    config = configured(methods=("real", "softmax+cutmix+mix"), seeds=1)
    weighted = dataclasses.replace(
        config, classifier=dataclasses.replace(config.classifier, recipe="weight")
    )
    found = by_method(compare(weighted, workspace_at(tmp_path)))
    assert found["softmax+cutmix+mix"]["failure"] is None


def test_the_test_split_is_closed_until_all_are_trained(workspace, monkeypatch):
    from gemix.steps.compare import training

    def train(*args, **kwargs):
        with pytest.raises(DataError, match="test split is out of reach"):
            read_images([workspace.data], "test")
        raise GemixError("stop here")

    monkeypatch.setattr(training, "train", train)
    other = dataclasses.replace(
        configured(),
        classifier=dataclasses.replace(
            configured().classifier,
            lr=1e-3,
        ),
    )
    with pytest.raises(GemixError, match="nothing can be compared: real failed: stop here"):
        compare(other, workspace)


def test_a_planted_effect_is_found_and_a_planted_null_is_not(tmp_path):
    """Held-back images of new patients in the place of synthetic ones, and the real ones again."""
    workspace, faint = Workspace.at(tmp_path), {"smooth": 0.0, "contrast": 45}
    write_set(workspace.data, {"train": 18, "val": 48, "test": 180}, **faint)
    made = faint | {"kind": "synthetic"}
    write_set(workspace.synthetic("oracle"), {"train": 240}, seed=5, **made)
    write_set(workspace.synthetic("copy"), {"train": 18}, **made)
    config = configured(methods=("real", "oracle", "copy"), seeds=6)
    classifier = dataclasses.replace(config.classifier, epochs=6, epoch_images=96)
    results = compare(dataclasses.replace(config, classifier=classifier), workspace)
    found = by_method(results)
    assert found["oracle"]["helps"] and found["oracle"]["finding"].startswith("helps: macro-F2")
    assert found["oracle"]["differences"]["macro_f2"]["delta"] > 0.1
    assert not found["copy"]["helps"] and not found["copy"]["harms"]
    assert found["copy"]["excluded"] < 0.2
    assert results["blocks"][0]["detectable"] > 0
