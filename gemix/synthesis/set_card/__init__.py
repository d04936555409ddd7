"""The card of a synthetic set: what it is made of, what it shows, what it is for."""
