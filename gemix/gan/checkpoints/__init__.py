"""Checkpoints, finished generators and transfer learning."""
