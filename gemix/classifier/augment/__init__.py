"""Augmentations of the classifiers' training images."""
