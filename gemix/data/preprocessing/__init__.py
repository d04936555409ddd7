"""Decode image files and turn scans into square 8-bit images of the body."""
