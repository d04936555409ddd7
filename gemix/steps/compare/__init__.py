"""The step that compares methods of training."""
