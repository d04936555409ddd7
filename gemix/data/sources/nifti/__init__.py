"""Read NIfTI volumes."""
