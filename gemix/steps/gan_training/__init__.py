"""The step that trains the GAN."""
