"""Reading files whose paths may name patients: what goes wrong is told without the path."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from gemix.core.errors import StoreError
from gemix.io.storage import Store


@contextlib.contextmanager
def redact_path(store: Store, name: str) -> Iterator[None]:
    """Around a read of the file `name`: a StoreError names the store, not the file.

    Raises:
        StoreError: as the block does, with the same remedy.
    """
    try:
        yield
    except StoreError as error:
        # the answer of the store repeats the path in whatever spelling: its code alone is kept
        answer = " ".join(str(error.__context__).split())
        code = re.search(r"AWS Error \w+", answer)
        text = str(error).replace(answer, code[0] if code else "no code")
        path, instead = f"{store.url}/{name}", f"data.path {store.url}: a file below it"
        raise StoreError(text.replace(path, instead)) from None
