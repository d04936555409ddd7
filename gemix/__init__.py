"""gemix: synthetic chest CT of soft labels, and whether it helps a classifier miss fewer."""

__version__ = "0.1.0"
