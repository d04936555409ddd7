"""Errors, configuration, randomness and the process group: what everything else builds on."""
