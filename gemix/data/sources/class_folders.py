"""Archives with a folder for each class, with or without folders of splits above them."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from gemix.core.errors import DataError
from gemix.data.scan import Quarantined
from gemix.data.sources.files import (
    MISNAMED,
    Files,
    describe_endings,
    escaped,
    list_files,
    natural_key,
)
from gemix.data.sources.folder_names import (
    find_mask_folders,
    is_hidden,
    is_split_of_masks,
    lies_in,
    normalize_class,
    split_of,
)
from gemix.io.storage import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """Files below ``<root>/<class>/`` or ``<root>/<split>/<class>/``, at any depth.

    Attributes:
        by_class: the wanted files of each class in natural order; two or more classes, none empty.
        splits: split (train, val or test) of each of these files; empty where the archive has
            no folders of splits.
        loose: files beside the class folders.
        masks: wanted files in folders of segmentation masks.
        others: files in class folders that are not wanted.
        unusable: wanted files whose names cannot be used.
        unusable_of_class: number of these by class.
        files: all of these.
    """

    by_class: dict[str, list[str]]
    splits: dict[str, str]
    loose: list[str]
    masks: list[str]
    others: list[str]
    unusable: list[Quarantined]
    unusable_of_class: Counter[str]
    files: Files

    def notes(self, kind: str) -> list[str]:
        """Return sentences about what was left out; `kind` names the wanted files."""
        notes = self.files.notes()
        if self.splits:
            found = sorted({*self.splits.values()}, key=("train", "val", "test").index)
            notes.append(f"splits ({', '.join(found)}) taken from the first level of folders")
        if self.loose:
            notes.append(f"left out {len(self.loose)} files beside the class folders")
        if self.masks:
            notes.append(
                f"left out {len(self.masks)} {kind}s in folders of segmentation masks, as "
                f"{self.masks[0]!r}"
            )
        if self.others:
            endings = describe_endings(self.others)
            notes.append(f"left out {len(self.others)} files that are no {kind}s: {endings}")
        return notes


def find_class_folders(
    store: Store, is_wanted: Callable[[str], bool], kind: str, endings: str
) -> ClassFolders:
    """Sort all files below the root into classes.

    Where every folder of the first level is named after a split (``train``, ``valid``,
    ``imagesTs``, ...), the second level holds the classes. Class names are in Unicode's NFC.

    Args:
        is_wanted: tells whether a file name is one of those that are looked for.
        kind: what these are, in a word: "image".
        endings: the endings of their names, for error messages.

    Raises:
        DataError: if only some folders of the first level are splits; if there is no class
            folder, one alone, one without a wanted file, or two whose names differ in case alone;
            or if a class is held out of training that the training split lacks.
    """
    files = list_files(store)
    first_level = _first_level(store, files)
    level = 1 if _has_splits(store, first_level) else 0
    masks = find_mask_folders(filter(is_wanted, files.names), level)
    masks |= {name for name in first_level if level and is_split_of_masks(name)}
    folders = _class_folders(store, first_level - masks, level, masks)
    by_class: dict[str, list[str]] = {name: [] for name in folders}
    splits: dict[str, str] = {}
    loose, in_masks, others, unusable = [], [], [], []
    unusable_of_class: Counter[str] = Counter()
    for name in files.names:
        parts = name.split("/")
        if lies_in(name, masks):
            (in_masks if is_wanted(name) else others).append(name)
        elif len(parts) < level + 2:
            loose.append(name)
        else:
            label = normalize_class(parts[level])
            folders.setdefault(label, "/".join(parts[: level + 1]))
            of_class = by_class.setdefault(label, [])
            if not is_wanted(name):
                others.append(name)
                continue
            of_class.append(name)
            if split := split_of(parts[0]) if level else None:
                splits[name] = split
    for name in files.misnamed:
        if name.count("/") <= level:
            loose.append(name)
        elif is_wanted(name):
            unusable.append(Quarantined(source=name, reason=MISNAMED))
            unusable_of_class[normalize_class(name.split("/")[level])] += 1
        else:
            others.append(name)
    found = ClassFolders(
        by_class={name: by_class[name] for name in sorted(by_class, key=natural_key)},
        splits=splits,
        loose=loose,
        masks=in_masks,
        others=others,
        unusable=unusable,
        unusable_of_class=unusable_of_class,
        files=files,
    )
    _check(found, folders, level, store, kind, endings)
    return found


def _first_level(store: Store, files: Files) -> set[str]:
    """Return the folders at the root; those of a disk even if they are empty."""
    named = {name.partition("/")[0] for name in files.names if "/" in name}
    return named | set(_folders_in(store, ""))


def _folders_in(store: Store, folder: str) -> Iterator[str]:
    """Yield names of folders on a disk, so that an empty one is noticed; a bucket has none."""
    path = store.path(folder) if folder else store.url
    if not store.is_local or not os.path.isdir(path):
        return
    for entry in os.scandir(path):
        # not DirEntry.is_dir, which raises for a link to itself
        if os.path.isdir(entry.path) and not is_hidden(entry.name):
            if escaped(entry.name) != entry.name:
                raise DataError(
                    f"{path}/{escaped(entry.name)}: a class folder whose name is no UTF-8; "
                    "rename it"
                )
            yield entry.name


def _has_splits(store: Store, first_level: set[str]) -> bool:
    """Return whether the first level holds splits; raise DataError if only some folders do."""
    splits = {name for name in first_level if split_of(name) or is_split_of_masks(name)}
    if splits and splits != first_level:
        shown = ", ".join(map(repr, sorted(splits)))
        others = ", ".join(map(repr, sorted(first_level - splits)[:5]))
        raise DataError(
            f"data.path {store.url}: {shown} are named as splits, but {others} beside them are "
            "not; keep only folders of splits there, with the class folders in each, or rename "
            "those that are classes"
        )
    return any(map(split_of, splits))


def _class_folders(
    store: Store, first_level: set[str], level: int, masks: set[str]
) -> dict[str, str]:
    """Return the first folder of each class that a disk, or for level 0 a bucket, shows."""
    paths = sorted(first_level, key=natural_key)
    if level:
        paths = [f"{outer}/{inner}" for outer in paths for inner in _folders_in(store, outer)]
    found: dict[str, str] = {}
    for path in sorted(paths, key=natural_key):
        if path not in masks:
            found.setdefault(normalize_class(path.split("/")[level]), path)
    return found


def _check(
    found: ClassFolders, folders: dict[str, str], level: int, store: Store, kind: str, endings: str
) -> None:
    where = f"data.path {store.url}"
    if not found.by_class:
        loose = describe_endings(found.loose) or "none"
        inside = " inside its folder of the split" if level else ""
        raise DataError(
            f"{where}: no class folders; put the {kind}s of each class into a folder of its own"
            f"{inside} ({len(found.loose)} files lie loose: {loose})"
        )
    for name, files in found.by_class.items():
        if not files:
            folder = folders[name]
            inside = [other for other in found.others if other.startswith(f"{folder}/")]
            state = f"only {describe_endings(inside)}" if inside else "it is empty"
            if any(bad.source.startswith(f"{folder}/") for bad in found.unusable):
                state = "only such whose names are no UTF-8: rename them"
            raise DataError(
                f"{store.url}/{folder}: no {kind} in this class folder ({state}); add {endings} "
                "files or remove the folder"
            )
    if len(found.by_class) == 1:
        raise DataError(
            f"{where}: only one class, {next(iter(found.by_class))!r}; two or more class folders "
            "are needed (or data.path points one folder too deep or too high)"
        )
    check_spelling(found.by_class, f"{where}: class folders", "merge or rename one")
    _check_splits(found, where)


def check_spelling(names: Iterable[str], what: str, remedy: str) -> None:
    """Raise DataError for two class names that differ in case or outer spaces alone."""
    spelt: dict[str, str] = {}
    for name in names:
        other = spelt.setdefault(name.casefold().strip(), name)
        if other != name:
            raise DataError(
                f"{what}: {other!r} and {name!r} differ in case or spaces alone; {remedy}"
            )


def _check_splits(found: ClassFolders, where: str) -> None:
    """Raise DataError for a class that is held out of training but not trained on."""
    splits = {
        name: {found.splits[file] for file in files} if found.splits else set()
        for name, files in found.by_class.items()
    }
    trained = [name for name, of in splits.items() if "train" in of]
    strange = [name for name, of in splits.items() if of and "train" not in of]
    if trained and strange:
        raise DataError(
            f"{where}: class folder {strange[0]!r} of the split {min(splits[strange[0]])} is not "
            f"in the training split, which holds {', '.join(map(repr, trained))}; give each class "
            "folder the same name in every split"
        )
