"""How near generated images are to real ones: in distribution, in variety, and too near."""
