"""Keep paths, which may name patients, out of errors of the store."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from gemix.core.errors import StoreAccessError, StoreError
from gemix.io.storage import Store


@contextlib.contextmanager
def redact_path(store: Store, name: str) -> Iterator[None]:
    """Replace the name of the file in an error of the store by that of the store.

    Raises:
        StoreError, StoreAccessError: as the block does, with the same remedy.
    """
    try:
        yield
    except (StoreError, StoreAccessError) as error:
        # S3 repeats the path in any spelling: of its answer only the error code is kept
        answer = " ".join(str(error.__context__).split())
        code = re.search(r"AWS Error \w+", answer)
        text = str(error).replace(answer, code[0] if code else "no code")
        path, replacement = f"{store.url}/{name}", f"data.path {store.url}: a file below it"
        raise type(error)(text.replace(path, replacement)) from None
