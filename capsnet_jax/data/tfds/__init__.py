"""Sets of tfds (TensorFlow Datasets) without TensorFlow: find, prepare, decode and cache them."""
