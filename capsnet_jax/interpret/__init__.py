"""What a trained network has learned: a finished run and images in, arrays out."""
