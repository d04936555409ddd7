"""Adversarial losses, regularizers and the losses of StyleGAN2's phases."""
