"""Secret sharing from one party's view. Knows no plan, no Keras and no sockets (only `transport.Channel`)."""
