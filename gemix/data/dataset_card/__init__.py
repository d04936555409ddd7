"""The dataset card: what a shard set holds, in words and pictures."""
