"""Audits of what a generator may have copied."""
