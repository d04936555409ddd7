"""Public networks, read without running code from their files."""
