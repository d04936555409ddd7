"""The page to explore a generator: its images, what is asked and seen, and that it stands alone."""

from __future__ import annotations

import base64
import html.parser
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from gemix.classifier.bundle import Classifier
from gemix.classifier.config import ClassifierConfig
from gemix.classifier.models import ModelSpec, build
from gemix.classifier.normalization import Normalization
from gemix.config import load
from gemix.core.errors import AlreadyFinishedError, CheckpointError, ConfigError, DataError
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.generator_io import load_generator, save_generator
from gemix.gan.config import GanConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.sampling import sample_images
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.report.explore import frame_uri, simplex_rows
from gemix.steps.sets.explore import explore
from jobs._runtime import cli
from tests.steps.planted_classifiers import write_teacher

CONFIG = load("demo", ["synthesis.precision=float32"])
NAMES = ("normal", "<b>pneumonia</b>", "cancer", "covid", "fibrosis")


def write_generator(workspace: Workspace, classes: int, side: int = 16) -> None:
    architecture = Architecture(
        resolution=side,
        img_channels=1,
        label_dim=classes,
        z_dim=8,
        w_dim=8,
        mapping_layers=1,
        channel_base=64,
        channel_max=8,
    )
    config = GanConfig(batch=8)
    spec = TrainingSpec(
        architecture=architecture, config=config, classes=NAMES[:classes], data_digest="0" * 64
    )
    torch.manual_seed(0)
    state = new_state(architecture, config, torch.device("cpu"))
    save_generator(Store(workspace.gan), state, spec)


def untrained_teacher(workspace: Workspace, classes: int) -> Classifier:
    spec = ModelSpec(model="test_resnet", classes=classes, channels=1, resolution=16)
    torch.manual_seed(1)
    weights = build(spec).state_dict()
    weights["fc.weight"] *= 30  # so that it does not say the same of all images
    teacher = Classifier(
        spec=spec,
        normalization=Normalization(mean=(0.5,), std=(0.3,)),
        classes=NAMES[:classes],
        method="teacher",
        config=ClassifierConfig(model="test_resnet"),
        training_digest="0" * 64,
        history=(),
        validation={"epoch": 1, "val_macro_f2": 0.5, "val_loss": 1.0},
        state=weights,
    )
    write_teacher(Store(workspace.teacher), teacher)
    return teacher


class Page(html.parser.HTMLParser):
    """The frames of a page, by seed, and all that it refers to."""

    def __init__(self, source: str):
        super().__init__()
        self.frames: dict[int, list[dict[str, str]]] = {}
        self.pairs: dict[int, int] = {}
        self.references, self.open, self.inputs = [], [], 0
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in ("img", "meta", "input", "br", "line", "polyline", "link"):
            self.open.append(tag)
        if found.get("class", "").startswith("latent"):
            self.seed = int(found["data-seed"])
            self.frames[self.seed], self.pairs[self.seed] = [], 0
        elif found.get("class") == "frame":
            self.frames[self.seed].append(found)
        elif found.get("class") == "block":
            self.pairs[self.seed] += 1
        elif tag == "img" and "src" in found:
            self.frames[self.seed][-1] |= found
        self.inputs += tag == "input"
        self.references += [found[name] for name in ("src", "href", "srcset") if found.get(name)]

    def handle_endtag(self, tag):
        if tag not in ("line", "polyline"):
            assert self.open.pop() == tag


def pixels(frame: dict[str, str]) -> np.ndarray:
    data = base64.b64decode(frame["src"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


def numbers(frame: dict[str, str], name: str) -> list[float]:
    return [float(part) for part in frame[name].split(",")]


def source_of(workspace: Workspace, config=CONFIG, **arguments) -> str:
    url = explore(config, workspace, overwrite=True, **arguments)
    folder, _, name = url.rpartition("/")
    return Store(folder).read_bytes(name).decode()


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Workspace:
    workspace = Workspace.at(tmp_path_factory.mktemp("three"))
    write_generator(workspace, 3)
    return workspace


@pytest.fixture(scope="module")
def teacher(three) -> Classifier:
    return untrained_teacher(three, 3)


@pytest.fixture(scope="module")
def source(three, teacher) -> str:
    return source_of(three, seeds=[4, 7], steps=5)


def test_the_simplex_is_even_and_begins_with_the_first_class():
    rows = simplex_rows(4)
    assert len(np.unique(rows, axis=0)) == len(rows) == 10
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(rows[[0, 6, 9]], np.eye(3))
    np.testing.assert_allclose(np.unique(rows.round(5)), [0, 1 / 3, 2 / 3, 1], atol=1e-5)


def test_each_image_is_that_of_its_seed_and_label(source, three, teacher):
    page, network = Page(source), load_generator(Store(three.gan)).network
    assert list(page.frames) == [4, 7]
    for seed, frames in page.frames.items():
        assert len(frames) == 6 + 3 * 5  # a triangle of 3 on a side, and three paths
        asked = np.array([numbers(frame, "data-asked") for frame in frames], np.float32)
        images = sample_images(network, [seed] * len(asked), asked, CONFIG.synthesis)
        np.testing.assert_array_equal(np.stack([pixels(f) for f in frames]), images[:, 0])
        seen = [numbers(frame, "data-seen") for frame in frames]
        np.testing.assert_allclose(seen, teacher.predict(images), atol=0.002)


def test_the_same_key_is_the_same_label_of_every_latent(source):
    first, second = Page(source).frames.values()
    assert [f["data-key"] for f in first] == [f["data-key"] for f in second]
    assert len({f["data-key"] for f in first}) == len(first)
    assert [f["data-asked"] for f in first] == [f["data-asked"] for f in second]


def test_what_is_seen_is_drawn_below_a_path(source):
    page = Page(source)
    charts = re.findall(r"<svg viewBox=\"0 0 5 100\".*?</svg>", source, re.S)
    assert len(charts) == 6
    lines = re.findall(r'<polyline points="([^"]+)"', charts[0])
    assert len(lines) == 3
    path = page.frames[4][6:11]
    for index, line in enumerate(lines):
        points = np.array([point.split(",") for point in line.split()], float)
        np.testing.assert_allclose(points[:, 0], np.arange(5) + 0.5)
        seen = [numbers(frame, "data-seen")[index] for frame in path]
        np.testing.assert_allclose(1 - points[:, 1] / 100, seen, atol=0.002)


def test_the_page_stands_alone_and_says_all_without_a_script(source):
    page = Page(source)
    assert page.open == []
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert "http" not in re.sub(r'"data:[^"]+"', "", source)
    assert "<b>pneumonia" not in source and "&lt;b&gt;pneumonia" in source
    static = re.sub(r"<script>.*?</script>", "", source, flags=re.S)
    assert Page(static).frames == page.frames
    style = "".join(re.findall(r"<style>(.*?)</style>", source, flags=re.S))
    hidden = re.findall(r"([^{}]+){[^{}]*display: none[^{}]*}", style)
    assert hidden
    assert [rule for rule in hidden if ".latent" in rule and ".js" not in rule] == []
    alts = [frame["alt"] for frame in page.frames[4]]
    assert alts[0].startswith("asked: normal 100%; seen: ")


@pytest.mark.parametrize(("classes", "images", "pairs"), [(2, 5, 1), (5, 50, 10)])
def test_other_numbers_of_classes_have_paths_alone(tmp_path, classes, images, pairs):
    workspace = Workspace.at(tmp_path)
    write_generator(workspace, classes)
    source = source_of(workspace, seeds=[0], steps=5)
    page = Page(source)
    assert (len(page.frames[0]), page.pairs[0]) == (images, pairs)
    assert 'class="triangle"' not in source
    assert ('<select id="pair">' in source) == (pairs > 3)
    # no teacher, so nothing is seen
    assert "data-seen" not in source and "<polyline" not in source
    assert "gemix train-teacher" in source


def test_large_images_are_jpeg_of_bounded_size():
    image = np.random.default_rng(0).integers(90, 110, (3, 256, 256), dtype=np.uint8)
    found = frame_uri(image)
    assert found.startswith("data:image/jpeg")
    assert Image.open(io.BytesIO(base64.b64decode(found.partition(",")[2]))).size == (192, 192)
    assert frame_uri(image[:1, :64, :64]).startswith("data:image/png")


def test_what_cannot_be_explored_is_refused(three, source, tmp_path):
    with pytest.raises(AlreadyFinishedError, match="--overwrite"):
        explore(CONFIG, three, seeds=[0])
    with pytest.raises(CheckpointError, match="run gemix train-gan first"):
        explore(CONFIG, Workspace.at(tmp_path), seeds=[0])
    for arguments, message in [
        ({"seeds": range(1000)}, "1000 x 54 images"),
        ({"seeds": []}, "0 x 54 images"),
        ({"seeds": [0], "steps": 1}, "--steps 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            explore(CONFIG, three, out=str(tmp_path / "out"), **arguments)
    one = Workspace.at(tmp_path / "one")
    write_generator(one, 0)
    with pytest.raises(ConfigError, match="0 classes"):
        explore(CONFIG, one, seeds=[0])
    write_generator(one, 2)
    untrained_teacher(one, 3)
    with pytest.raises(DataError, match=r"the teacher in .* knows the classes"):
        explore(CONFIG, one, seeds=[0])
    assert not Store(f"{one.workdir}/explore").list()


def test_the_command_writes_where_it_is_told(three, tmp_path, capsys):
    words = ["explore", "--gan", three.gan, "-w", str(tmp_path), "--seeds", "3", "--steps", "3"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.strip() == f"{tmp_path}/explore/explore.html"
    page = Page((tmp_path / "explore/explore.html").read_text(encoding="utf-8"))
    assert [len(frames) for frames in page.frames.values()] == [3 + 9]
