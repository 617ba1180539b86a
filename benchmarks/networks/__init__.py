"""Servers and a client on this machine, with emulated links between them. See `hosts.emulated`."""
