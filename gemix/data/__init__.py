"""Data: from raw scans to Parquet shards, and back into arrays."""
