"""Archives with one sub-folder a class: which files of it are of which class."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from gemix.core.errors import DataError
from gemix.data.scan import Quarantined
from gemix.data.sources.files import (
    MISNAMED,
    Files,
    describe_endings,
    escaped,
    is_hidden,
    list_files,
    natural_key,
)
from gemix.io.storage import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """Files below ``<root>/<class>/``, at any depth, in natural order.

    Attributes:
        by_class: those that are wanted, by class; two or more classes, none empty.
        loose: files beside the class folders.
        others: files in class folders that are not wanted.
        unusable: files in class folders that are wanted but have names that cannot be used.
        files: all of these.
    """

    by_class: dict[str, list[str]]
    loose: list[str]
    others: list[str]
    unusable: list[Quarantined]
    files: Files

    def notes(self, what: str) -> list[str]:
        """Sentences about what was left out; `what` names the wanted files."""
        notes = self.files.notes()
        if self.loose:
            notes.append(f"left out {len(self.loose)} files beside the class folders")
        if self.others:
            endings = describe_endings(self.others)
            notes.append(f"left out {len(self.others)} files that are no {what}s: {endings}")
        return notes


def find_class_folders(
    store: Store, wanted: Callable[[str], bool], what: str, endings: str
) -> ClassFolders:
    """Sorts all files below the root into classes.

    Args:
        wanted: whether a file name is one of those that are looked for.
        what: what these are, in a word: "image".
        endings: what they may end in, in words, for error messages.

    Raises:
        DataError: without class folders, with one alone, with one that holds nothing wanted, or
            with two whose names differ in case alone.
    """
    files = list_files(store)
    by_class: dict[str, list[str]] = {name: [] for name in _folders(store)}
    found = ClassFolders(by_class=by_class, loose=[], others=[], unusable=[], files=files)
    for name in files.names:
        folder, slash, _ = name.partition("/")
        if not slash:
            found.loose.append(name)
        elif wanted(name):
            found.by_class.setdefault(folder, []).append(name)
        else:
            found.by_class.setdefault(folder, [])
            found.others.append(name)
    for name in files.misnamed:
        if "/" not in name:
            found.loose.append(name)
        elif wanted(name):
            found.unusable.append(Quarantined(source=name, reason=MISNAMED))
        else:
            found.others.append(name)
    _check(found, store, what, endings)
    return found


def _folders(store: Store) -> list[str]:
    """Class folders of a disk, so that an empty one is noticed; a bucket has no empty ones."""
    if not store.is_local or not os.path.isdir(store.url):
        return []
    # not DirEntry.is_dir, which raises for a link to itself
    names = [e.name for e in os.scandir(store.url) if os.path.isdir(e.path)]
    names = [name for name in names if not is_hidden(name)]
    for name in names:
        if escaped(name) != name:
            where = f"{store.url}/{escaped(name)}"
            raise DataError(f"{where}: a class folder whose name is no UTF-8; rename it")
    return sorted(names, key=natural_key)


def _check(found: ClassFolders, store: Store, what: str, endings: str) -> None:
    where = f"data.path {store.url}"
    if not found.by_class:
        loose = describe_endings(found.loose) or "none"
        raise DataError(
            f"{where}: no class folders; put the {what}s of each class into a folder of its own "
            f"({len(found.loose)} files lie loose: {loose})"
        )
    for name, files in found.by_class.items():
        if not files:
            inside = [other for other in found.others if other.startswith(f"{name}/")]
            state = f"only {describe_endings(inside)}" if inside else "it is empty"
            if any(bad.source.startswith(f"{name}/") for bad in found.unusable):
                state = "only such whose names are no UTF-8: rename them"
            raise DataError(
                f"{store.url}/{name}: no {what} in this class folder ({state}); add {endings} "
                "files or remove the folder"
            )
    if len(found.by_class) == 1:
        raise DataError(
            f"{where}: only one class, {next(iter(found.by_class))!r}; two or more class folders "
            "are needed (or data.path points one folder too deep or too high)"
        )
    seen: dict[str, str] = {}
    for name in found.by_class:
        other = seen.setdefault(name.casefold().strip(), name)
        if other != name:
            raise DataError(
                f"{where}: class folders {other!r} and {name!r} differ in case or spaces alone; "
                "merge or rename one"
            )
