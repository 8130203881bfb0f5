"""Operators, one module per pattern."""
