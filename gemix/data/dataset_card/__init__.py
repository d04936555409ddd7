"""The dataset card: contents of a shard set as text and pictures."""
