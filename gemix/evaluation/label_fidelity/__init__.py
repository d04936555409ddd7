"""Label fidelity: whether images show the labels that were asked for."""
