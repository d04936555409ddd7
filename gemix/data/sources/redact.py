"""Keep the paths of files, which may name patients, out of error messages."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from gemix.core.errors import StoreError
from gemix.io.storage import Store


@contextlib.contextmanager
def redact_path(store: Store, name: str) -> Iterator[None]:
    """Replace the path of the file `name` in a StoreError of the block by that of the store.

    Raises:
        StoreError: as the block does, with the same remedy.
    """
    try:
        yield
    except StoreError as error:
        # S3 repeats the path in any spelling: of its answer only the error code is kept
        answer = " ".join(str(error.__context__).split())
        code = re.search(r"AWS Error \w+", answer)
        text = str(error).replace(answer, code[0] if code else "no code")
        path, replacement = f"{store.url}/{name}", f"data.path {store.url}: a file below it"
        raise StoreError(text.replace(path, replacement)) from None
