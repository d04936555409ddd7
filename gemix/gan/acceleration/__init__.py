"""Phases of a training step as whole graphs: captured as CUDA graphs, or compiled."""
