from __future__ import annotations

from html.parser import HTMLParser

import pytest

from gemix.config import PipelineConfig
from gemix.core.errors import DataError
from gemix.io.storage import Store
from gemix.report.content import gather
from gemix.report.page import duration, rate, render

VOID = {"meta", "img", "br", "link", "path", "use", "hr"}


class Page(HTMLParser):
    """Collects tags, addresses, ids and text, and insists on balanced tags."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.addresses, self.ids, self.open, self.words = [], [], [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.addresses += [values[k] for k in ("src", "href", "xlink:href") if k in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_needs_no_other_file(source):
    page = Page(source)
    assert page.addresses
    inside = ("data:image/png;base64,", "data:image/svg+xml;base64,", "#")
    assert all(address.startswith(inside) for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in source
    assert "http" not in source.replace("http://www.w3.org/2000/svg", "")


def test_charts_keep_apart_from_each_other(source):
    page = Page(source)
    assert len(page.ids) == len(set(page.ids))
    # 4 differences, 4 of the images, 2 of the classifiers, 2 of the GAN
    assert page.tags.count("svg") == 12
    assert "#0a0a0" not in source and "#010101" not in source  # all colours are the page's


def test_the_verdict_comes_before_the_table_and_accuracy_last(source):
    text = Page(source).text
    assert text.index("Not shown.") < text.index("Real against real + synthetic")
    assert text.index("macro-F2 ↑") < text.index("false-negative rate ↓") < text.index("accuracy ↑")
    assert "A simpler method reached more: real + onehot has macro-F2 0.675" in text


def test_real_only_stands_first_then_the_methods_as_configured(source):
    body = source[source.index("<tbody>") :]
    places = [body.index(f"<th>{name}</th>") for name in ("real only", "real + softmax")]
    assert places == sorted(places)
    assert '<tr class="best"><th>real + dirichlet</th>' in source


def test_rates_are_shown_in_the_layouts_of_the_papers_tables(source):
    start = source.index("In the layouts of the paper")
    text = Page(
        f"<details><summary>{source[start : source.index('</details>', start)]}</details>"
    ).text
    assert "real only: accuracy" in text and "method: recall" in text
    # baseline, then method: accuracy, macro-F1, precision, recall
    assert "real + softmax 0.710 0.630 0.660 0.640 0.740 0.660 0.690 0.670" in text
    # accuracy, macro-F1, precision, recall, F2, FNR
    assert "real + onehot 0.745 0.665 0.695 0.675 0.675 0.325" in text


def test_every_class_shows_real_and_synthetic_images(source):
    for name in ("normal", "pneumonia", "cancer"):
        assert source.count(f'alt="real {name}"') == 8
        assert source.count(f'alt="synthetic {name}"') == 24
    assert source.count('class="path"') == 3


def test_the_figures_of_the_labels_are_shown_as_images(source):
    assert source.count('class="labels"') == 2  # the set of an earlier version has none
    assert 'alt="labels of softmax"' in source and 'alt="labels of onehot"' in source


def test_file_names_are_escaped_and_the_quarantine_counted(source):
    assert "scans/&lt;b&gt;0&lt;/b&gt;.png" in source
    assert "scans/<b>" not in source
    text = Page(source).text
    assert "23 files were set aside and not used: 23 × truncated image." in text
    assert "The first 12; all of them are in data/quarantine.json." in text


def test_the_run_is_described(source):
    text = Page(source).text
    for words in ("72 of 80 listed files were found.", "train-gan 5 min 1 s", "PyTorch", "60"):
        assert words in text
    assert "gemix-classifier, version 3" in text


def test_the_configuration_names_no_directory(finished, config):
    places = {
        "synthesis": {"generator": "s3://ward-7/gan"},
        "classifier": {"weights": "/scratch/doe/start.safetensors"},
        "metrics": {"extractor": "torchscript:/scratch/doe/inception.pt"},
        "sweep": {"storage": "postgresql://doe@host/studies"},
    }
    tree = config.to_mapping()
    for section, values in places.items():
        tree[section] |= values
    page = render(gather(finished, PipelineConfig.from_mapping(tree)))
    for shown in ("generator: gan", "start.safetensors", "inception.pt", "storage: studies"):
        assert shown in page
    for hidden in ("/scratch", "@host", "ward-7", finished.workdir):
        assert hidden not in page


@pytest.mark.parametrize(
    ("missing", "words", "gone"),
    [
        ("evaluation/evaluation.json", "the verdict and the results (gemix evaluate)", "Confusion"),
        ("synthetic/onehot/manifest.json", "onehot images (gemix synthesize)", "synthetic, onehot"),
        ("gan/log.jsonl", "the GAN's training curves (gemix train-gan)", "GAN: losses"),
        ("gan/metrics.json", None, "Are they copies of training images?"),
        ("gan/label_path.png", None, "Along the soft-label path"),
        ("synthetic/softmax/labels.svg", None, "labels of softmax"),
        ("data/manifest.json", "the real images (gemix prepare)", "Set aside"),
    ],
)
def test_what_a_missing_step_would_show_is_left_out_and_named(
    finished, config, missing, words, gone
):
    Store(finished.workdir).delete(missing)
    text = Page(render(gather(finished, config))).text
    assert gone not in text
    assert words is None or words in text


def test_an_empty_work_directory_is_an_error_with_a_remedy(workspace, config):
    with pytest.raises(DataError, match=r"run-7: no step .* gemix pipeline"):
        gather(workspace, config)


def test_a_metric_that_does_not_exist_is_left_out(finished, config):
    store = Store(finished.evaluation)
    tree = store.read_json("evaluation.json")
    for row in tree["results"]:
        row["missed_disease_rate"] = None
        row["intervals"].pop("missed_disease_rate")
        row["difference_to_real"].pop("missed_disease_rate", None)
    store.write_json("evaluation.json", tree)
    assert "missed-disease rate ↓" not in Page(render(gather(finished, config))).text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (301, "5 min 1 s"), (7265, "2 h 1 min")]
)
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text


def test_rates_have_three_decimals_or_a_dash():
    assert rate(0.12345) == "0.123"
    assert rate(None) == "–"


def test_overlap_that_was_allowed_is_said_beside_the_results(finished, config, source):
    assert "neither the GAN nor any classifier has seen" in Page(source).text
    store = Store(finished.evaluation)
    shared = {"learned": "the train split", "held_out": "the test split", "groups": 2, "images": 3}
    overlap = {"shared": [shared], "unknown": ["the training images of the generator"]}
    store.write_json("evaluation.json", store.read_json("evaluation.json") | {"overlap": overlap})
    text = Page(render(gather(finished, config))).text
    assert "share 2 patients or groups, 3 equal images and 0 copies of images" in text
    assert "no record of the training images of the generator" in text
    assert "neither the GAN nor any classifier has seen" not in text


def with_evaluation(finished, config, **changes) -> str:
    store = Store(finished.evaluation)
    store.write_json("evaluation.json", store.read_json("evaluation.json") | changes)
    return Page(render(gather(finished, config))).text


def test_calibration_and_moved_thresholds_are_told(finished, config):
    tree = Store(finished.evaluation).read_json("evaluation.json")
    for row in tree["results"]:
        row["calibration"] = {
            "ece": 0.0611,
            "ece_uncalibrated": 0.1422,
            "brier": 0.2033,
            "brier_uncalibrated": 0.2544,
        }
        row["most_probable"] = {"macro_f2": 0.7155, "fnr": 0.2266}
    text = with_evaluation(finished, config, **tree)
    assert all(value in text for value in ("0.061", "0.142", "0.203", "0.254"))
    assert "By the most probable class alone: real only macro-F2 0.716" in text


def test_classes_of_few_test_patients_and_the_healthy_class_are_named(finished, config):
    test = {"normal_class": "normal", "groups_by_class": {"normal": 30, "cancer": 1}}
    text = with_evaluation(finished, config, test=test)
    assert "fewer than 10 test patients or groups: cancer (1);" in text
    assert "The healthy class is normal." in text


def test_a_classifier_that_was_not_registered_is_told(finished, config):
    text = with_evaluation(finished, config, registered_model=None)
    assert "No classifier was registered" in text and "version 3" not in text
