"""Results as typed records: what is missing or of the wrong type is named with its file."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from gemix.core.errors import DataError
from gemix.io import results
from gemix.io.records import to_json, write_record
from gemix.io.storage import Store

METHOD = {
    "method": "softmax",
    "accuracy": 0.7,
    "macro_f1": 0.6,
    "macro_f2": 0.65,
    "fnr": 0.35,
    "missed_disease_rate": None,
    "per_class": {"normal": {"recall": 0.6, "fnr": 0.4, "precision": 0.5}},
    "confusion": [[3, 1], [2, 4]],
    "seeds": 2,
    "intervals": {"macro_f2": [0.5, 0.8]},
    "difference_to_real": {"macro_f2": {"delta": 0.1, "low": -0.1, "high": 0.3, "p": 0.2}},
}
ROW = {"name": "real-seed0", "method": "real", "seed": 0, "val_macro_f2": 0.6, "val_loss": 1.0}
QUALITY = {"kimg": 1.0, "images": 50, "real_images": 60, "extractor": "x", "kid": 0.1, "fid": 9.0}
AUDIT = {"copying_auc": 0.5, "near_fraction": 0.05}
MODEL = {"name": "ct", "version": "1"}
FILES = {
    "evaluation.json": {
        "results": [METHOD],
        "best": "real",
        "best_classifier": ROW,
        "registered_model": MODEL,
        "test": {"images": 10, "classes": ["normal", "covid"], "normal_class": "normal"},
        "overlap": {
            "shared": [
                {"learned": "train", "held_out": "test", "groups": 1, "images": 2, "copies": 3}
            ],
            "unknown": ["the generator"],
            "not_compared": [],
        },
        "teacher": {"macro_f2": 0.9, "fnr": 0.1, "seeds": 2, "intervals": {"fnr": [0.0, 0.2]}},
    },
    "classifiers.json": [ROW],
    "training.json": {"kimg": 1.0, "images_per_s": 120.5},
    "metrics.json": {
        "primary_metric": "kid",
        "last": QUALITY,
        "generator": QUALITY,
        "best": {"kimg": 1.0, "score": 0.1},
        "used": "last",
        "memorization": {
            "samples": 50,
            "held_out": 10,
            "neighbors": 3,
            "rows": [{"sample": 0, "shown_as": "first"}],
            "by_features": AUDIT,
            "by_pixels": None,
        },
    },
    "steps.json": {"prepare": 1.5},
}
READERS = {
    "evaluation.json": results.read_evaluation,
    "classifiers.json": results.read_classifiers,
    "training.json": results.read_training,
    "metrics.json": results.read_image_metrics,
    "steps.json": results.read_steps,
}
# mappings whose keys are names of classes, rates or audits
BY_NAME = ("by_features", "by_pixels", "per_class", "intervals", "difference_to_real")
OPTIONAL = {  # what a file may lack, as earlier versions' do
    "evaluation.json": {
        *("best", "best_classifier", "registered_model", "test", "overlap", "teacher"),
    },
    "metrics.json": {"generator", "best"},
    "steps.json": {"prepare"},
}


def paths(tree, at=()):
    """Yield the paths of all values in a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs:
        yield (*at, key)
        if isinstance(value, (dict, list)):
            yield from paths(value, (*at, key))


def parent_of(tree, path):
    for key in path[:-1]:
        tree = tree[key]
    return tree


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_read(store, name):
    store.write_json(name, FILES[name])
    record = READERS[name](store)
    assert to_json(record) == FILES[name]
    write_record(store, name, record)
    assert READERS[name](store) == record


@pytest.mark.parametrize("name", FILES)
def test_additional_fields_are_accepted(store, name):
    tree = copy.deepcopy(FILES[name])
    for path in [(), *paths(FILES[name])]:
        place = tree
        for key in path:
            place = place[key]
        by_name = name == "steps.json" or path[-1:] in {(one,) for one in BY_NAME}
        if isinstance(place, dict) and not by_name:
            place["of_a_later_version"] = {"x": [1]}
    store.write_json(name, tree)
    READERS[name](store)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("wrong", [{}, [], "a word", None, 3])
def test_a_file_of_another_shape_is_named(store, name, wrong):
    if type(wrong) is type(FILES[name]) and name in ("steps.json", "classifiers.json"):
        return  # empty
    store.write_json(name, wrong)
    with pytest.raises(DataError, match=rf"{store.url}/{name}: .*(missing|is .* and not)"):
        READERS[name](store)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("wrong", ["a word", {"x": "y"}, [None], float("nan"), True])
def test_every_value_of_a_wrong_type_is_named(store, name, wrong):
    refused = 0
    for path in paths(FILES[name]):
        tree = copy.deepcopy(FILES[name])
        place = parent_of(tree, path)
        if type(place[path[-1]]) is type(wrong) and not isinstance(wrong, float):
            continue
        place[path[-1]] = wrong
        store.write_bytes(name, json.dumps(tree).encode())
        try:
            READERS[name](store)
        except DataError as error:
            assert str(path[-1]) in str(error) and f"{store.url}/{name}: " in str(error)
            refused += 1
    assert refused


@pytest.mark.parametrize("name", FILES)
def test_every_missing_value_is_named_or_optional(store, name):
    for path in paths(FILES[name]):
        tree = copy.deepcopy(FILES[name])
        place = parent_of(tree, path)
        if isinstance(place, list):
            continue
        del place[path[-1]]
        store.write_json(name, tree)
        try:
            READERS[name](store)
        except DataError as error:
            assert f"{path[-1]} is missing" in str(error)
            assert path not in {(one,) for one in OPTIONAL.get(name, ())}
        else:
            assert len(path) > 1 or path[0] in OPTIONAL[name]


@pytest.mark.parametrize("name", sorted(set(FILES) - {"steps.json"}))
@pytest.mark.parametrize("data", [None, b"", b"{", b"\xff"])
def test_a_missing_or_damaged_file_is_named_with_the_command_that_makes_it(store, name, data):
    if data is not None:
        store.write_bytes(name, data)
    with pytest.raises(DataError, match=rf"{store.url}/{name}: .*--overwrite"):
        READERS[name](store)


def test_names_of_the_first_version_are_read(store):
    store.write_json("metrics.json", FILES["metrics.json"])
    current = results.read_image_metrics(store)
    tree = copy.deepcopy(FILES["metrics.json"])
    tree["headline"] = tree.pop("primary_metric")
    del tree["generator"]
    tree["memorization"]["by_features"] = {"nearer": 0.5, "among_closest": 0.05}
    store.write_json("metrics.json", tree)
    assert results.read_image_metrics(store) == current
    assert dataclasses.asdict(current.generator)["metrics"] == {"kid": 0.1, "fid": 9.0}


def test_a_broken_line_of_the_log_is_named(store):
    lines = [b'{"step": 1, "kimg": 0.1, "loss_g": 1}', b"", b'{"step": 2, "kimg": 0.2}']
    store.write_bytes("log.jsonl", b"\n".join(lines))
    assert [line["step"] for line in results.read_log(store)] == [1, 2]
    for broken in (b'{"step": 2, "ki', b"3", b'{"kimg": "x"}', b"{}"):
        store.write_bytes("log.jsonl", b"\n".join([*lines, broken]))
        with pytest.raises(DataError, match=rf"{store.url}/log.jsonl: line 4 .*delete the line"):
            results.read_log(store)


def test_a_classifier_without_a_history_is_named(store):
    store.write_json("a/model.json", {"history": [{"epoch": 1, "val_macro_f2": 0.5}]})
    assert results.read_history(store, "a/model.json")[0]["epoch"] == 1
    for tree in ({}, [], {"history": 3}, {"history": [{"epoch": "one"}]}):
        store.write_json("a/model.json", tree)
        with pytest.raises(DataError, match=r"a/model\.json: .*(history|mapping)"):
            results.read_history(store, "a/model.json")


def test_a_quarantine_without_reasons_is_named(store):
    assert results.read_quarantine(store) == []
    store.write_json("quarantine.json", [{"source": "a.png"}])
    with pytest.raises(DataError, match=r"quarantine\.json: \[0\]\.reason is missing"):
        results.read_quarantine(store)
