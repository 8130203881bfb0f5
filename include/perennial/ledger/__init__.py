"""The ledger: an append-only record of every decision, with its figures and reasons."""

from __future__ import annotations

from perennial.ledger.entries import Entry, Head, Ledger

__all__ = ["Entry", "Head", "Ledger"]
