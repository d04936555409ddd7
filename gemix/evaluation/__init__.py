"""How good a classifier is, and how sure we may be of it."""
