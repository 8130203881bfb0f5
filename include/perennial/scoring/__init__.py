"""Scoring: resolve which version serves, score a partition with its own features, publish atomically."""
