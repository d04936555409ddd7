"""Leakage: patients, equal and nearly equal images that sets share; provenance of networks."""
