"""Memory of a server's arrays: freed blocks are kept for the next arrays.

NumPy asks the system for each large array anew, and the system clears every page of it on first touch: up to half of
the time of a step over 10^6 elements. What is kept never makes a process larger than its arrays made it lately, but for
an eighth and 8 MiB. It is not cleared, as memory of `malloc` is not: what was freed lies there until it is used again
or `tend` gives it back. Core files leave it out. This is about arrays of more than 64 KiB: smaller ones come from
`malloc`, which clears nothing, may never give memory back, and whose memory is in core files.
"""

from private_keras.ring.native_kernel import _native


class ArrayMemory:
    """See the module. One for all threads of a process."""

    def use(self) -> None:
        """From now on NumPy arrays that this thread makes, in this context (`contextvars`), come from here.

        Source: NumPy Enhancement Proposal 49 (`PyDataMem_SetHandler`).
        """
        _native.use_memory()

    def tend(self) -> None:
        """Gives back to the system what was not used since the last call. To be called now and then."""
        _native.tend_memory()

    def held(self) -> tuple[int, int]:
        """Bytes in arrays of more than 64 KiB, and bytes kept for the next ones."""
        return _native.memory_held()
