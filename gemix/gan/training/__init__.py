"""The training loop, trainers and their state."""
