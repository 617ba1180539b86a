"""Other libraries on the same workloads, each in an environment of its own: `python -m benchmarks run --peer`.

Importing this loads nothing. What runs in another library's environment needs NumPy and that library alone.
"""
