"""The binding to Ray and the command line."""
