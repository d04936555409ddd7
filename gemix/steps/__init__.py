"""The body of each step of the pipeline, without Ray."""
