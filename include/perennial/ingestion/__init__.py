"""Ingestion: judge what landed, commit it or set it aside with reasons."""

from __future__ import annotations

from perennial.ingestion.ingest import Verdict, commit, judge_partitions, quarantine_partitions

__all__ = ["Verdict", "commit", "judge_partitions", "quarantine_partitions"]
