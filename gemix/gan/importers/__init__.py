"""Read the networks of other projects without executing their files."""
