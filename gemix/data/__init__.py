"""From raw scans to Parquet shards that can be trusted, and back into arrays."""
