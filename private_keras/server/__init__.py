"""What a host runs that trusts nobody: no Keras, no TensorFlow, no code from anybody."""
