"""The lake: Delta tables that are replaced one partition at a time, the landing area, quarantine, and snapshots."""
