"""Maintenance: what keeps a year of partitions fast, and what may go. Nothing here is decided by the clock alone."""
