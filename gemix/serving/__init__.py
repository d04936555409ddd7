"""Classifiers for who gives scans and wants classes: files in, probabilities out."""
