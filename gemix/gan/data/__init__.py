"""Training data of the GAN."""
