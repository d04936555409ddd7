"""GAN losses and regularizers."""
