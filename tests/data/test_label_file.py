from __future__ import annotations

from pathlib import Path

import pytest

from gemix.core.errors import DataError
from gemix.data.sources.label_file import read_labels
from gemix.io.storage import Store


def read(folder: Path, text: str | bytes):
    data = text.encode() if isinstance(text, str) else text
    (folder / "labels.csv").write_bytes(data)
    return read_labels(Store(folder), "labels.csv")


def test_patients_classes_and_splits_are_read(tmp_path):
    text = '\ufeffPatient, class,split,age\r\n P1 ,normal,,50\r\n\r\n"P,2",cancer,Test,60\r\n'
    found = read(tmp_path, text + "P1,normal,,51\n")
    assert found.key == "patient"
    assert found.labels == {"P1": ("normal", None), "P,2": ("cancer", "test")}
    assert found.classes == ("cancer", "normal")


def test_series_may_be_labelled_instead(tmp_path):
    found = read(tmp_path, "class,series\nb,1.2.3\na,1.2.4\n")
    assert found.key == "series"
    assert found.labels == {"1.2.3": ("b", None), "1.2.4": ("a", None)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"data\.labels: empty; wanted.*patient or series, class"),
        ("\n \n", r"data\.labels: empty"),
        ("patient,label\nJANE,a\n", "no column class; wanted"),
        ("patient;class\nJANE;a\n", "no column class; wanted in the first line, with commas"),
        ("JANE,a\n", "no column class"),
        ("name,class\nJANE,a\n", "no column patient or series"),
        ("patient,series,class\nJANE,1,a\n", "both columns patient and series"),
        ("patient,class,class\nJANE,a,a\n", "two columns of the same name"),
        ("patient,class\n", "0 labelled patient keys of 0 classes; two or more"),
        ("patient,class\nJANE,a\nJOE,a\n", "2 labelled patient keys of 1 classes"),
        ("patient,class\n\nJANE,a\n,b\n", "line 4, column patient: empty"),
        ("patient,class\nJANE,\n", "line 2, column class: empty"),
        ("patient,class,split\nJANE,a,JOE\n", "line 2, column split: wanted train, val, test"),
        ("patient,class\nJANE,a\nJOE,b\nJANE,b\n", "lines 2 and 4: one patient with two classes"),
        ("patient,class,split\nJANE,a,val\nJANE,a,\n", "lines 2 and 3: one patient"),
        ("patient,class\nJANE,a\nJOE,A\n", "lines 2 and 3, column class: names that differ"),
        ("patient,class\nJANE,JOE,a\n", "line 2: 3 cells under 2 columns"),
        ('patient,class\nJANE,"a\n', "line 2: no CSV"),
        (b"patient,class\nJANE,a\nJ\xd6E,b\n", "line 3: not UTF-8 text"),
    ],
)
def test_what_is_wrong_is_named_but_no_patient(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, text)
    assert "JANE" not in str(caught.value)
    assert "JOE" not in str(caught.value)


def test_a_missing_file_is_named_by_its_setting(tmp_path):
    with pytest.raises(DataError, match=r"data\.labels: no such file.*correct data\.labels"):
        read_labels(Store(tmp_path), "labels.csv")
