"""Executors, output directories, the overlap check and classifier training, shared by the steps."""
