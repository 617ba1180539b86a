"""The workloads and how they are measured. Importing this loads nothing; `data` needs NumPy alone."""
