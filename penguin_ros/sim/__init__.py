"""A simulated robot camera with ground truth (MuJoCo). Used offline and in the demonstrations."""
