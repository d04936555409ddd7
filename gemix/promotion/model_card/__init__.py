"""The card of a classifier: what it is, what it was tested on, what it is for."""
