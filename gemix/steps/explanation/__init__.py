"""A look inside the best classifier of an evaluation."""
