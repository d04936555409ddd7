"""Recognize folders of splits, segmentation masks, thumbnails and hidden files by name."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

_SPLIT_WORDS = {
    "train": r"train(ing)?|trn",
    "val": r"val(id(ation)?)?|dev(elopment)?",
    "test": r"test(ing)?|tst",
}
_SUFFIX = r"(set|data|dataset|split|fold|folder|images?|imgs?|scans?|volumes?)?"
_SPLITS = {
    # "train", "Training Set", "train_images", and nnU-Net's "imagesTr"
    split: re.compile(rf"(images?|data|set)?({words}){_SUFFIX}|images({short})")
    for (split, words), short in zip(_SPLIT_WORDS.items(), ("tr", "va", "ts"), strict=True)
}
_SPLIT_MASKS = re.compile(
    r"(labels?|masks?|segmentations?)(tr|va|ts|train(ing)?|val(idation)?|test)"
)
_MASKS = re.compile(
    r".*masks?|.*segmentations?|seg|segs|(.+)?labels?|annotations?|groundtruths?|gt"
)
_IMAGES = re.compile(
    r"(ct)?(images?|imgs?|scans?|slices?|volumes?|frames?|originals?|raw|inputs?|data|png|jpe?g)"
)
_SYSTEM = {
    "__macosx",
    # Synology and QNAP
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@__thumb", "#recycle", "#snapshot"),
    # Windows
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("thumbnails", "thumbnail", "thumbs", "lost+found"),
}
_SYSTEM_FILES = re.compile(r"(synophoto_thumb|synoindex|synovideo).*")


def is_hidden(name: str) -> bool:
    """Return whether a file, or a folder above it, is hidden or made by a system for itself.

    Those are the files of macOS, of NAS systems (``@eaDir``), thumbnails and recycle bins.
    """
    parts = [part.casefold() for part in name.split("/")]
    return any(
        part.startswith(".") or part in _SYSTEM or _SYSTEM_FILES.fullmatch(part) for part in parts
    )


def normalize_class(name: str) -> str:
    """Return the class name in Unicode's NFC: one name for all spellings that look the same."""
    return unicodedata.normalize("NFC", name)


def split_of(folder: str) -> str | None:
    """Return the split (train, val or test) that a folder's name stands for, or None."""
    plain = _plain(folder)
    return next((name for name, pattern in _SPLITS.items() if pattern.fullmatch(plain)), None)


def is_split_of_masks(folder: str) -> bool:
    """Return whether the folder holds the masks of a split, as nnU-Net's ``labelsTr`` does."""
    return bool(_SPLIT_MASKS.fullmatch(_plain(folder)))


def find_mask_folders(names: Iterable[str], class_level: int) -> set[str]:
    """Return the folders of segmentation masks, told by their names and what lies beside them.

    Inside a class folder, ``masks`` (or ``labels``, ``lung masks``, ...) holds masks where other
    files lie beside it. On the level of the classes, where it may be the name of a class, it
    does where a folder ``images`` (or ``scans``, ...) lies beside it.

    Args:
        names: paths of the files that are looked for.
        class_level: how many folders stand above the class folders: 0, or 1 below splits.
    """
    children: dict[str, set[str]] = defaultdict(set)
    for name in names:
        parts = name.split("/")
        for depth, part in enumerate(parts[:-1]):
            children["/".join(parts[:depth])].add(part)
        children["/".join(parts[:-1])].add("")  # stands for the files
    found = set()
    for parent, inside in children.items():
        named = {part for part in inside if _MASKS.fullmatch(_plain(part))}
        others = inside - named
        if (parent.count("/") + 1 if parent else 0) <= class_level:
            others = {part for part in others if _IMAGES.fullmatch(_plain(part))}
        if others:
            found |= {f"{parent}/{part}" if parent else part for part in named}
    return found


def lies_in(name: str, folders: set[str]) -> bool:
    """Return whether one of the folders is above the file."""
    if not folders:
        return False
    parts = name.split("/")
    return any("/".join(parts[:depth]) in folders for depth in range(1, len(parts)))


def _plain(folder: str) -> str:
    return re.sub(r"[-_ .]", "", normalize_class(folder).casefold())
