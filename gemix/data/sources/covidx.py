"""COVIDx CT: an image folder, official split lists, and metadata of the patients.

Gunraj et al., "COVID-Net CT-2", Frontiers in Medicine 2022. A line of a list is
``filename class xmin ymin xmax ymax``; a patient's id is the prefix of the file name.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from gemix.core.errors import DataError
from gemix.data.map_fn import MapFn, serial_map
from gemix.data.scan import Scan
from gemix.data.sources.base import Listing
from gemix.data.sources.files import is_image, list_files, load_image, natural_key
from gemix.data.sources.scan_refs import ScanRef, ScanRefs
from gemix.io.storage import Store

CLASSES = ("Normal", "Pneumonia", "COVID-19")
METADATA = "metadata.csv"

# Parts of a name between patient and slice number, by source: series (iCTCF, COVID-CTset), kind
# (TCIA), DICOM UID (LIDC-IDRI), number of the scan (CNCB, radiopaedia.org).
_SCAN = re.compile(r"([-_]SR[-_]\d+|_ct|-\d+(\.\d+){5,})$")
_NUMBERED_SCAN = re.compile(r"((?:NCP|CP|Normal)_\d+|radiopaedia_\d+_\d+)_\d+")

_LIST_NAME = re.compile(r"(train|val|test)_COVIDx[-_]CT[-_]?(\w*)\.txt", re.IGNORECASE)


class CovidxSource:
    """Scans that the list files name and that are there. Local paths and ``s3://`` URLs.

    Args:
        path: the folder with the lists.
    """

    def __init__(self, path: str):
        self.store = Store(path)

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """See :class:`gemix.data.sources.base.Source`."""
        below = list_files(self.store)
        files = below.names
        listed = self._read_lists(files)
        folder, present = self._image_folder(files, listed)
        found = [item for item in listed.values() if item.key in present]
        notes = [f"found {len(found)} of {len(listed)} listed images", *below.notes()]
        if below.misnamed:
            notes.append(f"left out {len(below.misnamed)} files whose names are no UTF-8")
        if len(present) > len(found):
            notes.append(f"left out {len(present) - len(found)} images that no list names")
        ids, rule_note = self._patients(files, [item.key for item in found])
        kept = sorted({item.class_index for item in found})
        if len(kept) < 2:
            raise DataError(
                f"data.path {self.store.url}: all images found are {CLASSES[kept[0]]!r}; copy "
                "images of two or more classes"
            )
        missing = [name for index, name in enumerate(CLASSES) if index not in kept]
        if missing:
            notes.append(f"no image of class {', '.join(missing)} was found; it is left out")
        items = [
            dataclasses.replace(
                item,
                key=(path := posixpath.join(folder, item.key)),
                class_index=kept.index(item.class_index),
                group=ids[item.key],
                stamp=below.stamps[path],
            )
            for item in found
        ]
        items.sort(key=lambda item: (item.class_index, natural_key(item.key)))
        return Listing(
            classes=tuple(CLASSES[index] for index in kept),
            items=ScanRefs.of(items),
            listed=len(listed),
            notes=tuple(notes + rule_note),
        )

    def load(self, item: ScanRef) -> Scan:
        """See :class:`gemix.data.sources.base.Source`."""
        return Scan(pixels=load_image(self.store, item.key), is_hounsfield=False, box=item.box)

    def _read_lists(self, files: Iterable[str]) -> dict[str, ScanRef]:
        """Return the listed scans by file name; their keys have no folder yet."""
        matches = [match for match in map(_LIST_NAME.fullmatch, files) if match]
        if not matches:
            raise DataError(
                f"data.path {self.store.url}: no list file like train_COVIDx_CT-3A.txt; correct "
                "data.path or copy the lists there"
            )
        versions = sorted({match[2].upper() for match in matches})
        if len(versions) > 1:
            raise DataError(
                f"data.path {self.store.url}: list files of several versions "
                f"({', '.join(versions)}); keep those of one"
            )
        items: dict[str, ScanRef] = {}
        for match in matches:
            for item in self._read_list(match[0], match[1].lower()):
                other = items.setdefault(item.key, item)
                if other != item:
                    raise DataError(
                        f"{self.store.url}/{match[0]}: {item.key} is listed twice and "
                        "differently (class, box or split); remove one of the lines"
                    )
        return items

    def _read_list(self, name: str, split: str) -> Iterable[ScanRef]:
        for number, line in enumerate(self._text(name).splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{self.store.url}/{name}, line {number}"
            try:
                file, *numbers = line.rsplit(maxsplit=5)
                index, left, top, right, bottom = map(int, numbers)
            except ValueError:
                raise DataError(
                    f"{where}: {line[:120]!r}; wanted: filename class xmin ymin xmax ymax"
                ) from None
            if not 0 <= index < len(CLASSES):
                raise DataError(f"{where}: class {index}; 0 to {len(CLASSES) - 1} are known")
            if "/" in file or "\\" in file or file in ("", ".", ".."):
                raise DataError(
                    f"{where}: {file!r} is no plain file name; paths in a list are not followed"
                )
            yield ScanRef(key=file, class_index=index, split=split, box=(left, top, right, bottom))

    def _image_folder(self, files: Iterable[str], listed: dict) -> tuple[str, set[str]]:
        """Return the folder with most of the listed images, and its images' names."""
        folders: dict[str, set[str]] = defaultdict(set)
        for path in files:
            folder, name = posixpath.split(path)
            if is_image(name):
                folders[folder].add(name)
        known = listed.keys()
        best = max(folders, key=lambda folder: len(known & folders[folder]), default="")
        if not folders or not known & folders[best]:
            raise DataError(
                f"data.path {self.store.url}: none of the {len(listed)} listed images was found "
                f"(searched {', '.join(sorted(folders)) or 'every folder, no image anywhere'}); "
                "copy the image folder (3A_images, say) beside the list files"
            )
        return best, folders[best]

    def _patients(
        self, files: Iterable[str], names: Iterable[str]
    ) -> tuple[dict[str, str], list[str]]:
        """Return the patient of each file name, and a note on those missing from the metadata."""
        known: set[str] = set()
        if METADATA in files:
            rows = csv.DictReader(io.StringIO(self._text(METADATA)))
            if "patient id" not in (rows.fieldnames or ()):
                raise DataError(f"{self.store.url}/{METADATA}: no column 'patient id'")
            known = {row["patient id"].strip() for row in rows if row["patient id"]}
        patients = {name: patient_of(name, known) for name in names}
        guessed = Counter(patient for patient in patients.values() if patient not in known)
        if not guessed:
            return patients, []
        note = (
            f"{guessed.total()} images of {len(guessed)} patients are not in {METADATA}; their "
            "patients were read from the file names"
        )
        return patients, [note]

    def _text(self, name: str) -> str:
        try:
            return self.store.read_bytes(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.store.url}/{name}: not UTF-8 text ({error})") from error


def patient_of(name: str, known: set[str]) -> str:
    """Return the patient of a file: the longest known id that begins its name and ends at _ or -.

    Where no id is known, return the name without the numbers of scan and slice.
    """
    stem = posixpath.splitext(name)[0]
    ends = [len(stem)] + [i for i in range(len(stem) - 1, 0, -1) if stem[i] in "_-"]
    for end in ends:
        if stem[:end] in known:
            return stem[:end]
    scan = re.sub(r"[-_](IM)?\d+$", "", stem)
    if numbered := _NUMBERED_SCAN.fullmatch(scan):
        return numbered[1]
    return _SCAN.sub("", scan)
