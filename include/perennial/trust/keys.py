"""Keys that sign versions, and keys that are trusted: elliptic-curve pairs in PEM, told apart by fingerprint.

The private key comes from the environment, from ``$PERENNIAL_HOME/keys/signing.pem``, or from whoever calls
:func:`hold` (the Airflow side, for a connection). Trusted public keys are several, so that a key can be replaced while
what it signed stays verifiable. A fingerprint is the sha256 of the public key's PEM file, as ``sha256sum`` prints it.
No message here ever quotes a key.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from perennial.claims import claimed
from perennial.errors import SignatureError, UsageError
from perennial.settings import settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

#: Names in a folder of keys.
PRIVATE, TRUSTED = "signing.pem", "trusted"
#: The curves that the signature format knows.
CURVES = ("secp256r1", "secp384r1", "secp521r1")
_HELD: list[bytes] = []


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs. Its text is in no ``repr``."""

    pem: bytes = field(repr=False)
    public: PublicKey


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies.

    :param pem: in the canonical form, of which ``fingerprint`` is the sha256.
    :param where: the file or the variable that it comes from.
    """

    pem: bytes
    fingerprint: str
    where: str


def hold(pem: str) -> None:
    """Sign with this key from here on, in this process only: not in the environment, which children inherit."""
    _HELD[:] = [_bytes(pem)]


def private_key() -> PrivateKey:
    """The key that signs.

    :raises SignatureError: when there is none, others can read its file, or it is no key that the format knows.
    """
    given = settings().signing_key
    if _HELD:
        return _private(_HELD[0], "the key of PERENNIAL_SIGNING_CONN_ID")
    if "-----BEGIN" in given:
        return _private(_bytes(given), "PERENNIAL_SIGNING_KEY")
    path = Path(given)
    try:
        mode, pem = path.stat().st_mode, path.read_bytes()
    except FileNotFoundError:
        raise SignatureError(
            f"there is no key to sign versions with at {path}: make one with 'perennial keys new', or set "
            "PERENNIAL_SIGNING_KEY to a key or its file"
        ) from None
    except OSError as e:
        raise SignatureError(f"the signing key {path} cannot be read: {e.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise SignatureError(
            f"the signing key {path} can be read by others (mode {stat.S_IMODE(mode):o}): 'chmod 600 {path}', or make "
            "another one if they may have read it"
        )
    return _private(pem, str(path))


def trusted_keys() -> dict[str, PublicKey]:
    """Trusted public keys by fingerprint.

    :raises SignatureError: when there is none, or something among them is no public key that the format knows.
    """
    given = settings().trusted_keys
    found = {key.fingerprint: key for key in _trusted(given)}
    if not found:
        raise SignatureError(
            f"no public key is trusted, so no version can be verified: there is none in {_said(given)}; set "
            "PERENNIAL_TRUSTED_KEYS to public keys or a folder of them"
        )
    return found


def new_pair(folder: Path, *, replace: bool = False) -> PublicKey:
    """Make a P-256 pair: ``signing.pem`` for the owner's eyes only, and its public half in ``trusted/``.

    :param replace: put it in the place of the key that is there; that one's public half stays trusted.
    :raises UsageError: when there is a key already, and it is not to be replaced.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    path = folder / PRIVATE
    if path.exists() and not replace:
        raise UsageError(f"there is a signing key already: {path}; to rotate it, say --rotate")
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = _canonical(key.public_key())
    name = hashlib.sha256(public).hexdigest()
    trusted = folder / TRUSTED / f"{name[:16]}.pem"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    trusted.parent.mkdir(exist_ok=True)
    _write(trusted, public, 0o644)  # first: what the new key signs can be verified at once
    _write(path, private, 0o600)
    return PublicKey(public, name, str(trusted))


def _trusted(given: str) -> Iterator[PublicKey]:
    if "-----BEGIN" in given:
        end = "-----END PUBLIC KEY-----"
        for part in _bytes(given).decode().split(end):
            if part.strip():
                yield _public((part.strip() + "\n" + end + "\n").encode(), "PERENNIAL_TRUSTED_KEYS")
        return
    for place in (Path(p) for p in given.split(os.pathsep) if p):
        files = sorted(p for p in place.iterdir() if p.suffix in (".pem", ".pub")) if place.is_dir() else [place]
        for path in files:
            try:
                pem = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as e:
                raise SignatureError(f"the trusted key {path} cannot be read: {e.strerror}") from None
            yield _public(pem, str(path))


def _private(pem: bytes, where: str) -> PrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key: object = serialization.load_pem_private_key(pem, None)
    except Exception:  # what it says could quote the key
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise SignatureError(
            f"{where} holds no key that can sign: it must be an elliptic-curve key (P-256) in PEM, without a password; "
            "'perennial keys new' makes one"
        )
    return PrivateKey(pem, _public(_canonical(key.public_key()), where))


def _public(pem: bytes, where: str) -> PublicKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key: object = serialization.load_pem_public_key(pem)
    except Exception:  # it may be a private key, put there by mistake
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise SignatureError(f"{where} holds something that is no public elliptic-curve key (P-256) in PEM")
    canonical = _canonical(key)
    return PublicKey(canonical, hashlib.sha256(canonical).hexdigest(), where)


def _canonical(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _bytes(text: str) -> bytes:
    """A PEM as bytes; where a variable cannot hold line breaks, ``\\n`` is written for them."""
    return text.replace("\\n", "\n").encode()


def _said(given: str) -> str:
    return "PERENNIAL_TRUSTED_KEYS" if "-----BEGIN" in given else given


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file that has its mode from the first moment on, and is never half there."""
    with claimed(path.with_name(f".{path.name}.part")) as temporary:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
