"""What sets of images share: patients, equal images, nearly equal ones; and who has seen what."""
