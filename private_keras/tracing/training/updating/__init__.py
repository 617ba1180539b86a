"""An optimiser's update on shares: what Keras' optimiser does is recorded, then written with fixed-point care."""
