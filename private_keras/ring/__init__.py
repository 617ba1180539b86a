"""Integers mod 2^64: kernels, fixed point, randomness. Knows no secrets and no network."""
from typing import TYPE_CHECKING

from private_keras.ring.kernel import Kernel

if TYPE_CHECKING:
    from private_keras.ring.memory import ArrayMemory


def default_kernel(threads: int = 1) -> Kernel:
    """The native kernel.

    Args:
        threads: threads that one call may use; 1, because several servers often share a machine.

    Raises:
        KernelError: the extension is not built or does not load. There is no silent slow mode: whoever wants the
            reference asks for `numpy_kernel.NumpyKernel`.
    """
    # Loaded on demand, so that a missing extension is an error of the call and names the remedy.
    from private_keras.ring.native_kernel import NativeKernel

    return NativeKernel(threads=threads)


def array_memory() -> "ArrayMemory":
    """Memory for the arrays of a process that makes many large ones.

    Raises:
        KernelError: the extension is not built or does not load.
    """
    from private_keras.ring.memory import ArrayMemory

    return ArrayMemory()
