"""Privacy audits of a generator, and of a set of its images with a verdict."""
