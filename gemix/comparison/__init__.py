"""Comparisons of methods: training images, augmentations and recipes under one protocol."""
