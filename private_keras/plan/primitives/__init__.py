"""The closed table of primitives, in families: what a server can be asked to compute, and nothing else."""
from private_keras.plan.primitives import bilinear, compare, constant, elementwise, functions, random, reduce, shape
from private_keras.plan.primitives.primitive import Flow, Primitive

__all__ = ["TABLE", "Flow", "Primitive"]

_FAMILIES = (constant, elementwise, bilinear, shape, reduce, compare, functions, random)

TABLE: dict[str, Primitive] = {primitive.name: primitive for family in _FAMILIES for primitive in family.PRIMITIVES}
