"""Curation of synthetic sets: rules that say which images are left out."""
