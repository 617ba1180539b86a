"""Messages of the control plane: `messages.proto` and the code generated from it."""
