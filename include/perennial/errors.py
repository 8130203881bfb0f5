"""The exceptions of the core: one small tree, split by what the caller should do about it.

Every message is one clear sentence: what is wrong, where (file, line, column, partition), what to do.
"""

from __future__ import annotations


class PerennialError(Exception):
    """Base of every error that Perennial raises on purpose."""


class SpecError(PerennialError):
    """A spec, or something it names, is wrong. Retrying does not help; editing the file does."""


class DataError(PerennialError):
    """The data is wrong or missing. Retrying at once does not help."""


class UsageError(PerennialError):
    """Somebody asked for something that cannot be: a run without key, a future partition, an unknown feed."""


class RegistryError(PerennialError):
    """The model registry is not in the state that this step needs (for example, no champion yet)."""


class ConflictError(PerennialError):
    """Somebody else changed the same thing in the meantime, and retrying here did not resolve it."""


class ChampionMovedError(ConflictError):
    """The champion is no longer the one that was judged against. Only a new comparison helps."""


class NotReadyError(PerennialError):
    """An input has not landed yet. Waiting helps."""


class SignatureError(PerennialError):
    """A version cannot be signed or verified: no key, or one that cannot be used. Another setting helps."""


class RefusedError(SignatureError):
    """A version is not what a trusted key has signed, so nothing of it was loaded. Retrying does not help."""


class StageError(PerennialError):
    """A registered candidate failed its stage check, so it may not serve. Retrying does not help."""
