"""Parquet shards of labelled images with a manifest: written, read, verified."""
