"""Digests and, later, signatures."""
