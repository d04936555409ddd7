"""Sets of synthetic images of soft labels."""
