"""Parts of the audit of a set: real images, the discriminator's attack, the picture of pairs."""
