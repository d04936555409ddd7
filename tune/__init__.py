"""The sweep of T, b and N with Ray Tune and Optuna will live here; nothing is in it yet."""
