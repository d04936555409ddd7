"""How much memory Arrow holds, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa

# A buffer points to its pool without owning it: one that lives on in a reference cycle would be
# freed into a pool that is gone, which ends the process.
_pools: list[pa.MemoryPool] = []


@contextlib.contextmanager
def counted_by_a_pool() -> Iterator[pa.MemoryPool]:
    """Let Arrow allocate in a pool that counts from zero; its `max_memory` is the peak."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    _pools.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)
