"""Configurations that come with gemix, one YAML file each."""
