"""Images in a folder for each class."""

from __future__ import annotations

from gemix.data.map_fn import MapFn, serial_map
from gemix.data.scan import Scan
from gemix.data.sources.base import Listing
from gemix.data.sources.class_folders import find_class_folders
from gemix.data.sources.files import is_image, load_image
from gemix.data.sources.patient_pattern import patients_of
from gemix.data.sources.scan_refs import ScanRef, ScanRefs
from gemix.io.storage import Store


class FolderSource:
    """Images below ``<path>/<class>/`` or ``<path>/<split>/<class>/``, at any depth.

    Keys are the files' paths. Local paths and ``s3://`` URLs.

    Args:
        path: the folder with the class folders.
        patient_pattern: regular expression that finds the patient in a file's path
            (:func:`gemix.data.sources.patient_pattern.patients_of`); empty where patients are not
            known.
    """

    def __init__(self, path: str, patient_pattern: str = ""):
        self.store = Store(path)
        self.patient_pattern = patient_pattern

    def list(self, map_fn: MapFn = serial_map) -> Listing:
        """See :class:`gemix.data.sources.base.Source`."""
        found = find_class_folders(self.store, is_image, "image", "PNG, JPEG, BMP or TIFF")
        files = [
            (index, name) for index, names in enumerate(found.by_class.values()) for name in names
        ]
        notes = [f"found {len(files)} images in {len(found.by_class)} class folders"]
        groups: dict[str, str] = {}
        if self.patient_pattern:
            groups = patients_of((name for _, name in files), self.patient_pattern)
            notes.append(f"{len(set(groups.values()))} patients, named by data.patient_pattern")
        return Listing(
            classes=tuple(found.by_class),
            items=ScanRefs.of(
                ScanRef(
                    key=name,
                    class_index=index,
                    group=groups.get(name),
                    split=found.splits.get(name),
                    stamp=found.files.stamps[name],
                )
                for index, name in files
            ),
            listed=len(files) + len(found.unusable),
            notes=(*notes, *found.notes("image")),
            unusable=tuple(found.unusable),
            unusable_of_class=found.unusable_of_class,
        )

    def load(self, item: ScanRef) -> Scan:
        """See :class:`gemix.data.sources.base.Source`."""
        return Scan(pixels=load_image(self.store, item.key), is_hounsfield=False, box=item.box)
