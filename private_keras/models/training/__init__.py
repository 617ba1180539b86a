"""`fit`, `evaluate` and what they need: data, state on the servers, jobs, callbacks, checkpoints."""
