"""Classification metrics and their uncertainty."""
