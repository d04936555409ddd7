"""Training images: in memory, or streamed from shards."""
