"""Privacy audits of a generator."""
