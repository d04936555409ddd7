"""Augmentations that mix the images of a batch, or their features."""
