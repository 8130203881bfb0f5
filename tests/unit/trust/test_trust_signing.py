"""Signing a folder and verifying it: every way of tampering is told, and no key ever shows."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from perennial.cli import main
from perennial.errors import RefusedError, SignatureError, UsageError
from perennial.settings import settings
from perennial.trust import keys, signing

pytestmark = pytest.mark.fast


@pytest.fixture
def pair(home: Path, monkeypatch: pytest.MonkeyPatch) -> keys.PublicKey:
    """A pair in the home's own folder."""
    monkeypatch.delenv("PERENNIAL_SIGNING_KEY")
    monkeypatch.delenv("PERENNIAL_TRUSTED_KEYS")
    monkeypatch.setattr(keys, "_HELD", [])
    return keys.new_pair(home / "keys")


@pytest.fixture
def folder(pair: keys.PublicKey, tmp_path: Path) -> Path:
    """A signed folder."""
    own = tmp_path / "bundle"
    (own / "perennial" / "source").mkdir(parents=True)
    (own / "MLmodel").write_text("flavors: {}\n")
    (own / "model.skops").write_bytes(bytes(range(256)) * 50)
    (own / "perennial" / "plan.json").write_text("{}")
    (own / "perennial" / "source" / "pipeline.py").write_text("def build(): ...\n")
    signing.sign(own)
    return own


def refusal(folder: Path) -> str:
    with pytest.raises(RefusedError) as refused:
        signing.verify(folder)
    return str(refused.value)


def test_what_was_signed_is_verified_and_named(folder: Path, pair: keys.PublicKey) -> None:
    found = signing.verify(folder)
    assert found.signer == pair.fingerprint
    assert set(found.files) == {"MLmodel", "model.skops", "perennial/plan.json", "perennial/source/pipeline.py"}
    told = subprocess.run(["sha256sum", pair.where], capture_output=True, text=True, check=True).stdout.split()[0]
    assert told == found.signer, "the fingerprint can be had without us"


def test_what_mlflow_writes_on_loading_is_not_signed_and_does_not_hurt(folder: Path) -> None:
    (folder / "registered_model_meta").write_text("model_name: x\n")
    assert signing.verify(folder)
    moved = folder.rename(folder.with_name("m-0123"))
    assert signing.verify(moved), "nor does another name of the folder"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "MLmodel").write_text("x"), "MLmodel was changed after it was signed"),
        (lambda f: (f / "MLmodel").chmod(0o644) or (f / "new.py").touch(), "new.py was added after it was signed"),
        (lambda f: (f / ".gitignore").write_text("*"), ".gitignore was added after it was signed"),
        (lambda f: (f / "perennial/plan.json").unlink(), "perennial/plan.json is missing after it was signed"),
        (lambda f: (f / "MLmodel").rename(f / "MLmodel2"), "MLmodel was renamed to MLmodel2 after it was signed"),
        (lambda f: (f / "link").symlink_to("MLmodel"), "link is a symbolic link"),
        (lambda f: (f / "link").symlink_to("/etc", target_is_directory=True), "link is a symbolic link"),
        (lambda f: os.mkfifo(f / "pipe"), "pipe is no plain file"),
        (lambda f: (f / "registered_model_meta").mkdir(), "registered_model_meta is no plain file"),
        (lambda f: (f / "model.sig").unlink(), "it has no signature (model.sig)"),
        (lambda f: (f / "model.sig").write_text("{"), "its signature (model.sig) cannot be read"),
        (lambda f: (f / "model.sig").write_text("[" * 100_000), "its signature (model.sig) cannot be read"),
        (lambda f: (f / "model.sig").write_bytes(b"\xff"), "its signature (model.sig) cannot be read"),
    ],
)  # fmt: skip
def test_tampering_is_refused_by_name(folder: Path, change: Callable[[Path], object], says: str) -> None:
    change(folder)
    assert refusal(folder).startswith(says)


def test_a_link_in_the_place_of_a_signed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    """Even one to the very same bytes: what it names may change later."""
    (folder / "MLmodel").rename(tmp_path / "elsewhere")
    (folder / "MLmodel").symlink_to(tmp_path / "elsewhere")
    assert refusal(folder) == "MLmodel is a symbolic link"


def edit(folder: Path, change: Callable[[dict[str, object], dict[str, object]], object]) -> None:
    """Change a signature and the statement in it, without a key."""
    bundle = json.loads((folder / "model.sig").read_text())
    envelope = bundle["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(bundle, statement)
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (folder / "model.sig").write_text(json.dumps(bundle))


def test_a_statement_that_was_made_to_fit_is_refused(folder: Path) -> None:
    """The file and its digest in the statement are changed together; only a key could sign that."""
    (folder / "MLmodel").write_text("evil")

    def fit(bundle: object, statement: dict[str, dict[str, list[dict[str, str]]]]) -> None:
        named = next(r for r in statement["predicate"]["resources"] if r["name"] == "MLmodel")
        named["digest"] = hashlib.sha256(b"evil").hexdigest()

    edit(folder, fit)  # type: ignore[arg-type]
    assert refusal(folder) == "its signature (model.sig) was changed"


def test_a_statement_that_leaves_out_files_is_refused_even_with_a_good_key(folder: Path) -> None:
    """The package's own command signs so when it is told to; we never do, and do not believe it."""
    subprocess.run(
        [sys.executable, "-m", "model_signing", "sign", "key", str(folder), "--signature", str(folder / "model.sig"),
         "--private_key", settings().signing_key, "--ignore-paths", str(folder / "perennial")],
        check=True,
    )  # fmt: skip
    assert refusal(folder) == "its signature leaves out more than model.sig and registered_model_meta"


def test_a_foreign_key_is_refused_whatever_it_says_of_itself(folder: Path, pair: keys.PublicKey) -> None:
    foreign = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with signing._as_file(foreign) as path:
        from model_signing import signing as package

        made = package.Config().use_elliptic_key_signer(private_key=path)
    made.set_hashing_config(signing._hashing()).sign(folder, folder / "model.sig")
    said = refusal(folder)
    assert said.startswith("it is signed with the key ") and "which is not among the trusted ones" in said

    def pretend(bundle: dict[str, dict[str, dict[str, str]]], statement: object) -> None:
        bundle["verificationMaterial"]["publicKey"]["hint"] = pair.fingerprint

    edit(folder, pretend)  # type: ignore[arg-type]
    assert refusal(folder) == "its signature (model.sig) was changed"


def test_a_rotated_key_stays_good_until_it_is_no_longer_trusted(folder: Path, pair: keys.PublicKey) -> None:
    new = keys.new_pair(settings().home / "keys", replace=True)
    assert signing.signing().ready() == new.fingerprint != pair.fingerprint
    assert signing.verify(folder).signer == pair.fingerprint
    Path(pair.where).unlink()
    assert refusal(folder).startswith(f"it is signed with the key {pair.fingerprint[:16]}, which is not among")
    assert signing.sign(folder).signer == new.fingerprint


# ------------------------------------------------------------------------------------------------------------- keys


def test_a_pair_is_the_owner_s_alone_and_is_not_overwritten(pair: keys.PublicKey, home: Path) -> None:
    private = home / "keys" / "signing.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    before = private.read_bytes()
    with pytest.raises(UsageError, match="there is a signing key already"):
        keys.new_pair(home / "keys")
    assert private.read_bytes() == before


def test_a_key_that_others_can_read_signs_nothing(folder: Path, home: Path) -> None:
    (home / "keys" / "signing.pem").chmod(0o640)
    with pytest.raises(SignatureError, match=r"signing.pem can be read by others \(mode 640\): 'chmod 600 "):
        signing.sign(folder)


def test_keys_may_stand_in_the_environment(
    folder: Path, pair: keys.PublicKey, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PEM, with line breaks or with what stands for them; several public ones in a row."""
    other = keys.new_pair(home / "other")
    monkeypatch.setenv("PERENNIAL_SIGNING_KEY", (home / "keys/signing.pem").read_text().replace("\n", "\\n"))
    monkeypatch.setenv("PERENNIAL_TRUSTED_KEYS", other.pem.decode() + pair.pem.decode())
    shutil.rmtree(home / "keys")
    assert signing.sign(folder).signer == pair.fingerprint
    assert set(keys.trusted_keys()) == {pair.fingerprint, other.fingerprint}
    monkeypatch.setenv("PERENNIAL_TRUSTED_KEYS", f"{other.where}:{home / 'nothing'}")
    assert set(keys.trusted_keys()) == {other.fingerprint}


def test_a_key_that_is_held_is_not_in_the_environment(pair: keys.PublicKey, home: Path) -> None:
    other = keys.new_pair(home / "other")
    keys.hold((home / "other" / "signing.pem").read_text())
    assert keys.private_key().public.fingerprint == other.fingerprint
    assert not any("PRIVATE KEY" in v for v in os.environ.values())


@pytest.mark.parametrize("kind", ["nothing", "rsa", "password", "public", "curve", "rubbish"])
def test_what_is_no_key_is_a_sentence_that_does_not_quote_it(
    pair: keys.PublicKey, kind: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    plain, locked = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"x")
    p256 = ec.generate_private_key(ec.SECP256R1())
    pem = {
        "nothing": b"",
        "rsa": rsa.generate_private_key(65537, 2048).private_bytes(encoding, form, plain),
        "password": p256.private_bytes(encoding, form, locked),
        "public": pair.pem,
        "curve": ec.generate_private_key(ec.SECP256K1()).private_bytes(encoding, form, plain),
        "rubbish": b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
    }[kind]
    (home / "keys" / "signing.pem").write_bytes(pem)
    with pytest.raises(SignatureError, match="holds no key that can sign") as e:
        keys.private_key()
    assert "-----" not in str(e.value) and e.value.__cause__ is None
    Path(pair.where).write_bytes(pem)
    if kind != "public":
        with pytest.raises(SignatureError, match="is no public elliptic-curve key"):
            keys.trusted_keys()


def test_without_keys_nothing_is_signed_and_nothing_is_believed(folder: Path, home: Path) -> None:
    shutil.rmtree(home / "keys" / "trusted")
    for act in (signing.verify, signing.sign):
        with pytest.raises(SignatureError, match="no public key is trusted"):
            act(folder)
    (home / "keys" / "signing.pem").unlink()
    with pytest.raises(SignatureError, match=r"there is no key to sign versions with at .*'perennial keys new'"):
        signing.sign(folder)


def test_a_key_that_nobody_trusts_does_not_sign(folder: Path, pair: keys.PublicKey, home: Path) -> None:
    Path(pair.where).rename(home / "gone.pem")
    keys.new_pair(home / "other")
    shutil.copytree(home / "other" / "trusted", home / "keys" / "trusted", dirs_exist_ok=True)
    with pytest.raises(SignatureError, match="is not among the trusted keys, so what it signs would be refused"):
        signing.sign(folder)


@pytest.mark.parametrize("said", ["none", "off", "sigstore"])
def test_no_setting_turns_verification_off(folder: Path, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_SIGNING", said)
    with pytest.raises(SignatureError, match=f"PERENNIAL_SIGNING is '{said}'; it must be one of key"):
        signing.verify(folder)


def test_no_key_shows_where_settings_and_keys_are_printed(
    pair: keys.PublicKey, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = (home / "keys" / "signing.pem").read_text()
    monkeypatch.setenv("PERENNIAL_SIGNING_KEY", secret)
    shown = repr(settings()) + repr(keys.private_key()) + str(keys.private_key())
    assert main(["keys", "list"]) == 0
    monkeypatch.delenv("PERENNIAL_SIGNING_KEY")
    assert main(["keys", "new", "--rotate"]) == 0
    shown += "".join(capsys.readouterr())
    assert not [line for line in secret.splitlines()[1:-1] if line in shown] and "PRIVATE" not in shown
    assert pair.fingerprint in shown


def test_the_verb_lists_and_rotates(pair: keys.PublicKey, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new"]) == 2
    assert "there is a signing key already" in capsys.readouterr().err
    assert main(["keys", "new", "--rotate"]) == 0
    capsys.readouterr()
    assert main(["keys", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["fingerprint"]: r["signs"] for r in rows}[pair.fingerprint] is False
    assert sum(r["signs"] for r in rows) == 1 and len(rows) == 2
