"""A folder with one sub-folder a class."""

from __future__ import annotations

import os
from collections import defaultdict

from gemix.data.scan import Scan
from gemix.data.sources.base import Item, Listing
from gemix.data.sources.files import describe_endings, is_image, list_files, load_image, natural_key
from gemix.errors import DataError
from gemix.storage import Store


class FolderSource:
    """Images below ``<path>/<class>/``, at any depth; the folder's name is the class name.

    Patients are not known. Local paths and ``s3://`` URLs.
    """

    def __init__(self, path: str):
        self.store = Store(path)

    def list(self) -> Listing:
        """See :class:`gemix.data.sources.base.Source`."""
        by_class: dict[str, list[str]] = defaultdict(list)
        loose, others = [], []
        for name in self._folders():
            by_class[name]
        for name in list_files(self.store):
            folder, slash, _ = name.partition("/")
            if not slash:
                loose.append(name)
            elif is_image(name):
                by_class[folder].append(name)
            else:
                others.append(name)
        classes = tuple(by_class)
        self._check(by_class, loose, others)
        items = tuple(
            Item(key=name, class_index=index)
            for index, names in enumerate(by_class.values())
            for name in names
        )
        notes = [f"found {len(items)} images in {len(classes)} class folders"]
        if loose:
            notes.append(f"left out {len(loose)} files beside the class folders")
        if others:
            notes.append(
                f"left out {len(others)} files that are no images: " + describe_endings(others)
            )
        return Listing(classes=classes, items=items, listed=len(items), notes=tuple(notes))

    def load(self, item: Item) -> Scan:
        """See :class:`gemix.data.sources.base.Source`."""
        return Scan(pixels=load_image(self.store, item.key), is_hounsfield=False, box=item.box)

    def _folders(self) -> list[str]:
        """Class folders of a disk, so that an empty one is noticed; a bucket has no empty ones."""
        if not self.store.is_local or not os.path.isdir(self.store.url):
            return []
        hidden = lambda name: name.startswith(".") or name == "__MACOSX"  # noqa: E731
        entries = [e for e in os.scandir(self.store.url) if e.is_dir() and not hidden(e.name)]
        return sorted((entry.name for entry in entries), key=natural_key)

    def _check(self, by_class: dict[str, list[str]], loose: list[str], others: list[str]) -> None:
        where = f"data.path {self.store.url}"
        if not by_class:
            raise DataError(
                f"{where}: no class folders; put the images of each class into a folder of its "
                f"own ({len(loose)} files lie loose: {describe_endings(loose) or 'none'})"
            )
        for name, files in by_class.items():
            if not files:
                inside = [other for other in others if other.startswith(f"{name}/")]
                found = f"only {describe_endings(inside)}" if inside else "it is empty"
                raise DataError(
                    f"{self.store.url}/{name}: no image in this class folder ({found}); add PNG, "
                    "JPEG, BMP or TIFF images or remove the folder"
                )
        if len(by_class) == 1:
            raise DataError(
                f"{where}: only one class, {next(iter(by_class))!r}; two or more class folders "
                "are needed (or data.path points one folder too deep or too high)"
            )
        seen: dict[str, str] = {}
        for name in by_class:
            other = seen.setdefault(name.casefold().strip(), name)
            if other != name:
                raise DataError(
                    f"{where}: class folders {other!r} and {name!r} differ in case or spaces "
                    "alone; merge or rename one"
                )
