"""Ray jobs around the gemix library, and the command line."""
