"""What the steps share: executors, output directories, the check for overlap."""
