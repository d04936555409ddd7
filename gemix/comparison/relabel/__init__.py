"""Other labels for the images of a method, which separate the image from the label."""
