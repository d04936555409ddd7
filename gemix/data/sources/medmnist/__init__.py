"""Archives in MedMNIST's .npz layout."""
