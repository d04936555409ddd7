"""The training loop, the trainers of the methods and their state."""
