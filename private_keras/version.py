"""The release; client and servers must be of the same."""

VERSION = "0.1.0"
