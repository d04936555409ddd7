"""Files to probabilities: the same pixels as `gemix prepare`, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import io
import os
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from gemix.classifier.bundle import Classifier
from gemix.classifier.decision.decision import Decision
from gemix.classifier.grad_cam import grad_cam
from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.core.png import encode_png
from gemix.data.prepare.encoded_scan import preparation_settings
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.serving.scan_classifier import ScanClassifier
from gemix.steps.train_classifier import train_classifiers
from tests.data.dicom_files import CORONAL, assert_no_canary, write


def objects(*values: object) -> np.ndarray:
    """A 1-D array of any values."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.fixture(scope="module")
def of_dicom(dicom_set) -> ScanClassifier:
    return ScanClassifier(dicom_set.classifier())


@pytest.fixture(scope="module")
def of_png(png_set) -> ScanClassifier:
    return ScanClassifier(png_set.classifier())


@pytest.mark.parametrize("kind", ["dicom_set", "png_set"])
def test_a_file_gives_the_pixels_that_prepare_made_of_it(kind, request):
    made = request.getfixturevalue(kind)
    model = ScanClassifier(made.classifier())
    data = [file.read_bytes() for file in made.files]
    images = model.images(objects(*data))
    assert images.dtype == np.uint8 and images.shape == (24, made.manifest.channels, 32, 32)
    assert {image.tobytes() for image in images} == made.images()
    for values in (
        objects(*made.files),
        objects(*(base64.b64encode(one).decode() for one in data)),
        np.array([base64.encodebytes(one).decode() for one in data]),  # with line breaks
    ):
        np.testing.assert_array_equal(model.images(values), images)


def test_a_dicom_file_may_be_packed(dicom_set, of_dicom):
    data = dicom_set.files[0].read_bytes()
    plain, packed = of_dicom.images(objects(data, gzip.compress(data)))
    np.testing.assert_array_equal(packed, plain)


def test_jpeg_is_read(png_set, of_png):
    import cv2

    pixels = cv2.imread(str(png_set.files[0]), cv2.IMREAD_GRAYSCALE)
    jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    from_jpeg, from_png = of_png.images(objects(jpeg, png_set.files[0])).astype(int)
    assert np.abs(from_jpeg - from_png).mean() < 3


def test_arrays_stay_as_they_are(of_png):
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32), dtype=np.uint8)
    from_json = np.array(images.tolist(), dtype=object)
    for values in (images, from_json, images.astype(float)):
        np.testing.assert_array_equal(of_png.images(values), images)
    np.testing.assert_array_equal(of_png.predict(images), of_png.classifier.predict(images))
    assert of_png.images(images[:0]).shape == (0, 1, 32, 32)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((1, 1, 16, 16), np.uint8), r"shape \[1, 1, 16, 16\]; the classifier takes uint8"),
        (np.zeros((1, 32, 32), np.uint8), r"shape \[1, 32, 32\]"),
        (np.full((1, 1, 32, 32), 256), "not whole numbers from 0 to 255"),
        (np.full((1, 1, 32, 32), 0.5), "not whole numbers"),
        (np.full((1, 1, 32, 32), -1, dtype=object), "not whole numbers"),
        (np.full((1, 1, 32, 32), "7", dtype=object), "not whole numbers"),
        (np.full((1, 1, 32, 32), None), "not whole numbers"),
        (np.array([b"a"]), "loses bytes; make it of dtype object"),
    ],
)
def test_other_arrays_are_refused(of_png, values, reason):
    with pytest.raises(DataError, match=reason):
        of_png.images(values)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("/etc/passwd", "not base64"),
        ("file:///etc/hostname", "not base64"),
        ("data:image/png;base64,AAAA", "not base64"),
        ("Zm9v\N{SNOWMAN}", "not base64"),
        ("", "empty file"),
        (b"", "empty file"),
        (b"\x80\x04\x95cposix\nsystem\n.", "no PNG, JPEG"),  # the beginning of a pickle
        (None, "a NoneType; give bytes"),
        (7, "a int; give bytes"),
        (["nested"], "a list; give bytes"),
        (Path("nowhere.png"), r"cannot be read \(No such file"),
        (Path("/"), "cannot be read|no file"),
        (Path("/dev/zero"), "no file"),
    ],
    ids=repr,
)
def test_a_value_that_is_no_image_is_refused_with_its_row(png_set, of_png, value, reason):
    with pytest.raises(DataError, match=rf"image 1 of 2: .*({reason})") as caught:
        of_png.images(objects(png_set.files[0], value))
    assert caught.value.__cause__ is None and "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(of_png, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="image 0 of 1: a path of something that is no file"):
        of_png.images(objects(tmp_path / "pipe"))


def test_a_path_is_not_told(of_png, tmp_path):
    with pytest.raises(DataError) as caught:
        of_png.images(objects(tmp_path / "Doe^John.png"))
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("limit", [1000, 100])
def test_a_large_file_is_refused(png_set, of_png, monkeypatch, limit):
    for module in ("gemix.data.prepare.encoded_scan", "gemix.serving.encoded_rows"):
        monkeypatch.setattr(f"{module}.MAX_ENCODED_BYTES", limit)
    monkeypatch.setattr("gemix.serving.encoded_rows._MAX_TEXT", 2 * limit)
    data = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8))
    path = png_set.files[0].parent.parent / "noise.bin"
    path.write_bytes(data)
    for value in (data, base64.b64encode(data).decode(), path):
        with pytest.raises(DataError, match=rf"image 0 of 1: .*up to {limit} bytes are read"):
            of_png.images(objects(value))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Modality": "MR"}, "not CT; give axial CT slices"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizers"),
        ({"ImageOrientationPatient": CORONAL}, "not axial"),
        ({"SeriesInstanceUID": None}, "without Modality, SeriesInstanceUID"),
        ({"RescaleIntercept": 0}, "not Hounsfield units"),
        ({"RescaleSlope": None}, "no RescaleSlope"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"Rows": 60000}, r"48 x 60000 pixels|damaged"),
    ],
    ids=str,
)
def test_a_dicom_file_that_prepare_would_set_aside_is_refused(of_dicom, tmp_path, changes, reason):
    path = write(tmp_path / "slice", is_planted=True, **changes)
    with pytest.raises(DataError, match=rf"image 0 of 1: .*({reason})") as caught:
        of_dicom.images(objects(path.read_bytes()))
    assert_no_canary(str(caught.value))


@pytest.mark.parametrize("part", [0.2, 0.5, 0.95])
def test_a_truncated_file_is_refused(dicom_set, png_set, of_dicom, of_png, part):
    for made, model in ((dicom_set, of_dicom), (png_set, of_png)):
        data = made.files[0].read_bytes()
        with pytest.raises(DataError, match=r"image 0 of 1: .*(copy it again|export it again)"):
            model.images(objects(data[: int(part * len(data))]))


def test_blank_files_and_masks_are_refused(of_png, of_dicom, tmp_path):
    grey = np.full((64, 64, 1), 90, np.uint8)
    mask = np.where(np.arange(64)[:, None, None] < 30, 0, grey)
    for pixels, reason in ((grey, "blank"), (mask, "segmentation mask")):
        with pytest.raises(DataError, match=f"image 0 of 1: .*{reason}"):
            of_png.images(objects(encode_png(pixels)))
    blank = write(tmp_path / "slice", np.full((48, 48), 24, np.uint16)).read_bytes()
    with pytest.raises(DataError, match="image 0 of 1: blank"):
        of_dicom.images(objects(blank))


def test_slices_below_the_least_share_of_lung_are_refused(dicom_set):
    classifier = dicom_set.classifier()
    settings = dict(classifier.preprocessing) | {"min_lung_fraction": 0.9}
    model = ScanClassifier(dataclasses.replace(classifier, preprocessing=settings))
    with pytest.raises(DataError, match=r"image 0 of 1: .*\(data.min_lung_fraction\)"):
        model.images(objects(dicom_set.files[0]))


def test_each_kind_of_training_images_takes_its_kind_of_files(dicom_set, png_set, of_dicom, of_png):
    with pytest.raises(DataError, match=r"not a DICOM file.*-500/1400, 40/400, -600/1500 HU"):
        of_dicom.images(objects(png_set.files[0]))
    with pytest.raises(DataError, match="a DICOM file, and the window of the training images"):
        of_png.images(objects(dicom_set.files[0]))


def test_images_of_the_one_window_are_taken_beside_dicom(dicom_set, png_set):
    classifier = png_set.classifier()
    settings = dict(classifier.preprocessing) | {"is_hounsfield": True}
    model = ScanClassifier(dataclasses.replace(classifier, preprocessing=settings))
    images = model.images(objects(png_set.files[0], dicom_set.files[0]))
    assert images[0].tobytes() in png_set.images() and images.std(axis=(1, 2, 3)).min() > 10
    assert "-500/1400 HU" in model.accepts


def test_a_classifier_without_preprocessing_takes_arrays_alone(png_set):
    classifier = dataclasses.replace(png_set.classifier(), preprocessing=None)
    model = ScanClassifier(classifier)
    assert model.predict(model.images(np.zeros((2, 1, 32, 32), np.uint8))).shape == (2, 3)
    with pytest.raises(DataError, match=r"saved without the preprocessing.*train it again"):
        model.images(objects(png_set.files[0]))


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": "face"},
        {"resolution": 33},
        {"windows": [[1]]},
        {"windows": 7},
        {"is_hounsfield": 1},
    ],
    ids=str,
)
def test_preprocessing_that_is_not_known_is_refused(png_set, changes):
    classifier = png_set.classifier()
    settings = dict(classifier.preprocessing) | changes
    with pytest.raises(DataError, match="update gemix, or train the classifier again"):
        ScanClassifier(dataclasses.replace(classifier, preprocessing=settings))


def test_classifiers_are_trained_with_the_preprocessing_of_their_images(dicom_set, tmp_path):
    workspace = Workspace.at(tmp_path)
    (tmp_path / "data").symlink_to(dicom_set.url)
    config = PipelineConfig.from_mapping(
        {
            "data": dicom_set.config.to_mapping(),
            "classifier": {"model": "test_resnet", "epochs": 1, "batch": 8, "seeds": 1},
            "compute": {"cpus_per_worker": 1, "workers": 0},
        }
    )
    (row,) = train_classifiers(config, workspace)
    trained = Classifier.load(Store(f"{workspace.classifiers}/{row['name']}"))
    assert trained.preprocessing == preparation_settings(dicom_set.manifest)
    model = ScanClassifier(trained)
    assert {image.tobytes() for image in model.images(objects(*dicom_set.files))} == (
        dicom_set.images()
    )


@pytest.mark.parametrize(("threshold", "decided"), [(None, 1), (0.5, 1), (0.8, 2)])
def test_answers_name_the_class_by_the_rule_of_decision(of_png, threshold, decided):
    decision = Decision(normal=2, threshold=threshold)
    model = ScanClassifier(dataclasses.replace(of_png.classifier, decision=decision))
    (answer,) = model.describe(np.array([[0.125, 0.5, 0.375]], np.float32))
    classes = model.classifier.classes
    assert answer["class"] == classes[decided]
    assert answer["probabilities"] == dict(zip(classes, (0.125, 0.5, 0.375), strict=True))


def test_an_explanation_is_the_image_under_its_map_for_the_class_that_is_answered(of_png, png_set):
    pytest.importorskip("captum")
    images = of_png.images(objects(*png_set.files[:3]))
    plain = of_png.describe(of_png.predict(images))
    plain[1]["class"] = of_png.classifier.classes[0]  # whatever the rule of decision answers
    found = of_png.explain(images, plain)
    assert [{k: v for k, v in one.items() if k != "grad_cam"} for one in found] == plain
    labels = np.array([of_png.classifier.classes.index(one["class"]) for one in plain])
    classifier = of_png.classifier
    alone = [
        grad_cam(classifier.network, classifier.normalization, images[[row]], labels[[row]])
        for row in range(3)
    ]
    for one, image, expected in zip(found, images, alone, strict=True):
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(one["grad_cam"]))))
        assert pixels.shape == (32, 32, 3)
        (cam,) = expected.maps
        assert cam.max() == 1 and np.ptp(cam) > 0.5
        colours = 255 * matplotlib.colormaps["inferno"](cam)[..., :3]
        mixed = image[0, ..., None] * (1 - 0.6 * cam[..., None]) + 0.6 * cam[..., None] * colours
        np.testing.assert_allclose(pixels, mixed, atol=3)
    assert of_png.explain(images[:0], []) == []


def test_without_captum_there_is_no_explanation(of_png, monkeypatch):
    monkeypatch.setattr("gemix.classifier.grad_cam.is_installed", lambda: False)
    with pytest.raises(DataError, match="captum is not installed where the model runs; pip"):
        of_png.explain(np.zeros((1, 1, 32, 32), np.uint8), [{"class": "cancer"}])


def test_a_copy_in_the_middle_of_a_batch_counts_like_any_other(png_set, of_png):
    first = of_png.images(objects(png_set.files[0]))
    twice = of_png.images(objects(*png_set.files[:2], png_set.files[0]))
    np.testing.assert_array_equal(twice[2], first[0])
    assert of_png.images(objects()).shape == (0, 1, 32, 32)
