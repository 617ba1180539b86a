"""Keras models to plans, on the client. The only room that knows Keras' internals."""

from private_keras.tracing.trace import InputSpec, Traced, trace, unsupported

__all__ = ["InputSpec", "Traced", "trace", "unsupported"]
