"""The client side of a cluster: connect, share, run, and the embedded cluster on this machine."""
