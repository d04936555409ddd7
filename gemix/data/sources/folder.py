"""A folder with one sub-folder of images a class."""

from __future__ import annotations

from gemix.data.scan import Scan
from gemix.data.sources.base import Item, Listing
from gemix.data.sources.class_folders import find_class_folders
from gemix.data.sources.files import is_image, load_image
from gemix.storage import Store


class FolderSource:
    """Images below ``<path>/<class>/``, at any depth; the folder's name is the class name.

    Patients are not known. Local paths and ``s3://`` URLs.
    """

    def __init__(self, path: str):
        self.store = Store(path)

    def list(self) -> Listing:
        """See :class:`gemix.data.sources.base.Source`."""
        found = find_class_folders(self.store, is_image, "image", "PNG, JPEG, BMP or TIFF")
        items = tuple(
            Item(key=name, class_index=index)
            for index, names in enumerate(found.by_class.values())
            for name in names
        )
        note = f"found {len(items)} images in {len(found.by_class)} class folders"
        return Listing(
            classes=tuple(found.by_class),
            items=items,
            listed=len(items),
            notes=(note, *found.notes("image")),
        )

    def load(self, item: Item) -> Scan:
        """See :class:`gemix.data.sources.base.Source`."""
        return Scan(pixels=load_image(self.store, item.key), is_hounsfield=False, box=item.box)
