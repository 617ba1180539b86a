"""Training, evaluation and metrics as plans: what a model does to its weights in one step, on shares."""
