"""Signing a version's folder, and verifying it before anything in it is used. OpenSSF model-signing format.

The signature lies in the folder as ``model.sig``: an in-toto statement that names every other file with its sha256, in
a Sigstore bundle. It can be checked with the ``model_signing`` command alone (docs/trust.md). One class signs and
verifies per kind of key material; ``PERENNIAL_SIGNING`` chooses among :data:`KINDS`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from perennial.errors import RefusedError, SignatureError
from perennial.settings import settings
from perennial.trust.keys import private_key, trusted_keys

SIGNATURE = "model.sig"
#: Files of a version's folder that no signature covers: itself, and what MLflow notes when it loads from a folder.
UNSIGNED = (SIGNATURE, "registered_model_meta")
#: The MLflow tag with a signature's digest.
DIGEST_TAG = "signature.digest"
_PREDICATE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True, slots=True)
class Signed:
    """What a verified signature says.

    :param signer: who signed: a key's fingerprint (sha256 of its PEM).
    :param digest: sha256 over the digests of all files, in the order of their names.
    :param files: sha256 (hex) of each file by its path in the folder.
    """

    signer: str
    digest: str
    files: Mapping[str, str]


class Signing(Protocol):
    """A way to sign a folder and to verify it: a key here, an identity elsewhere (keyless Sigstore)."""

    def ready(self) -> str:
        """Who would sign.

        :raises SignatureError: when nobody can, or when nobody would believe it.
        """

    def sign(self, folder: Path) -> None:
        """Write the signature of ``folder`` into it."""

    def signer(self, bundle: Mapping[str, Any]) -> str:
        """Who a Sigstore bundle says has signed.

        :raises RefusedError: when that is nobody who is trusted.
        """

    def verify(self, folder: Path, signature: Path, signer: str) -> None:
        """Verify ``folder`` against the signature in the file ``signature``.

        :raises ValueError: when it does not fit.
        """


class KeySigning:
    """With an elliptic-curve key, and trusted public keys (:mod:`perennial.trust.keys`)."""

    def ready(self) -> str:
        own, trusted = private_key().public, trusted_keys()
        if own.fingerprint not in trusted:
            raise SignatureError(
                f"the signing key {own.fingerprint[:16]} is not among the trusted keys, so what it signs would be "
                "refused: add its public half to PERENNIAL_TRUSTED_KEYS"
            )
        return own.fingerprint

    def sign(self, folder: Path) -> None:
        from model_signing import signing

        with _as_file(private_key().pem) as key:
            made = signing.Config().use_elliptic_key_signer(private_key=key)
        made.set_hashing_config(_hashing()).sign(folder, folder / SIGNATURE)

    def signer(self, bundle: Mapping[str, Any]) -> str:
        said = str(bundle["verificationMaterial"]["publicKey"]["hint"])
        if said not in trusted_keys():
            raise RefusedError(f"it is signed with the key {said[:16]}, which is not among the trusted ones")
        return said

    def verify(self, folder: Path, signature: Path, signer: str) -> None:
        from model_signing import verifying

        with _as_file(trusted_keys()[signer].pem) as key:
            made = verifying.Config().use_elliptic_key_verifier(public_key=key)
        made.set_hashing_config(_hashing()).verify(folder, signature)


#: Kinds of signing by their name in ``PERENNIAL_SIGNING``.
KINDS: dict[str, type[Signing]] = {"key": KeySigning}


def signing() -> Signing:
    """The kind of signing that is set.

    :raises SignatureError: for one that is not known. None means "do not verify".
    """
    name = settings().signing
    if name not in KINDS:
        raise SignatureError(f"PERENNIAL_SIGNING is {name!r}; it must be one of {', '.join(sorted(KINDS))}")
    return KINDS[name]()


def sign(folder: Path) -> Signed:
    """Sign everything in ``folder``; the signature goes into it.

    :raises SignatureError: when there is no key to sign with, or it is not trusted.
    """
    kind = signing()
    kind.ready()
    kind.sign(folder)
    return verify(folder)


def verify(folder: Path) -> Signed:
    """Verify ``folder``. Nothing in it but the signature is parsed, and nothing is executed.

    :raises RefusedError: when it is not exactly what a trusted key has signed; the message goes behind "is refused:".
    :raises SignatureError: when no key is trusted at all.
    """
    kind = signing()
    found = _files(folder)
    try:
        raw = (folder / SIGNATURE).read_bytes()
    except FileNotFoundError:
        raise RefusedError(
            f"it has no signature ({SIGNATURE}); it was removed, or the version is older than signing (then train anew)"
        ) from None
    try:
        bundle = json.loads(raw)
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        signer = kind.signer(bundle)
        signed = _signed(signer, statement)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise RefusedError(f"its signature ({SIGNATURE}) cannot be read") from None
    try:
        with _as_file(raw) as signature:
            kind.verify(folder, signature, signer)
    except OSError:
        raise  # the disk, not the version
    except Exception as e:  # what the package and those below it raise has no common class
        said = _differences(folder, found, signed.files) or f"its signature ({SIGNATURE}) was changed"
        raise RefusedError(said) from e
    return signed


def tags(signed: Signed) -> dict[str, str]:
    """The signature's facts, as MLflow keeps them with a run and a version."""
    return {"signature.key": signed.signer, DIGEST_TAG: signed.digest, "signature.files": str(len(signed.files))}


def _signed(signer: str, statement: Mapping[str, Any]) -> Signed:
    """What a statement says.

    :raises ValueError: when it says something else than that it covers every file of a folder.
    """
    predicate = statement["predicate"]
    how = predicate["serialization"]
    if statement["predicateType"] != _PREDICATE or how["method"] != "files" or how["hash_type"] != "sha256":
        raise ValueError("another format")
    if not {str(p) for p in how.get("ignore_paths", ())} <= set(UNSIGNED):
        raise RefusedError(f"its signature leaves out more than {' and '.join(UNSIGNED)}")
    files = {str(r["name"]): str(r["digest"]) for r in predicate["resources"]}
    return Signed(signer, str(statement["subject"][0]["digest"]["sha256"]), files)


def _files(folder: Path) -> list[str]:
    """Paths of all files in ``folder``; a link or a device among them is refused before anything follows it."""
    found = []
    for path in sorted(folder.rglob("*")):
        mode, name = path.lstat().st_mode, path.relative_to(folder).as_posix()
        if stat.S_ISLNK(mode):
            raise RefusedError(f"{name} is a symbolic link")
        if not (stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and name not in UNSIGNED)):
            raise RefusedError(f"{name} is no plain file")
        if stat.S_ISREG(mode) and name not in UNSIGNED:
            found.append(name)
    return found


def _differences(folder: Path, found: list[str], signed: Mapping[str, str]) -> str:
    """What became of the files since they were signed, in words."""
    now = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in found}
    added = [n for n in now if n not in signed]
    missing = [n for n in signed if n not in now]
    said = [f"{n} was changed" for n in sorted(now) if n in signed and now[n] != signed[n]]
    for name in missing:
        to = next((n for n in added if now[n] == signed[name]), None)
        if to is None:
            said.append(f"{name} is missing")
        else:
            added.remove(to)
            said.append(f"{name} was renamed to {to}")
    said += [f"{n} was added" for n in added]
    more = f", and {len(said) - 3} more" if len(said) > 3 else ""
    return f"{', '.join(said[:3])}{more} after it was signed" if said else ""


def _hashing() -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=UNSIGNED, ignore_git_paths=False)


@contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    """Bytes as a file for a library that takes paths; they never come to lie on a disk under a name."""
    memory = getattr(os, "memfd_create", None)
    with tempfile.TemporaryFile() if memory is None else os.fdopen(memory("perennial"), "w+b") as f:
        f.write(data)
        f.flush()
        f.seek(0)
        yield Path(f"/dev/fd/{f.fileno()}")
