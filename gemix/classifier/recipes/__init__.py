"""How synthetic images are used in the training of a classifier."""
