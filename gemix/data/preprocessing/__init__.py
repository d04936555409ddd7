"""From the bytes of a file to one square image of the body."""
