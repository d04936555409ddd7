"""timm classifiers trained on soft labels."""
