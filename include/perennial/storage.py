"""Small objects under a URI: JSON figures, staged files, ledger entries, reports. ``file://`` and ``s3://``.

Tables do not go through here (Delta has its own storage layer). What this layer adds to plain reads and writes is
atomicity: ``put`` is never half-visible, and ``put_if_absent`` is a compare-and-set that two writers cannot both win.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlparse

from perennial.claims import claimed
from perennial.errors import ConflictError, UsageError
from perennial.settings import settings


class Store(Protocol):
    """Bytes under relative keys such as ``runs/abc/plan.json``.

    :raises UsageError: for a key with ``..``, a leading ``/``, an empty part, or a name that begins with a dot (those
        are the temporary files of a folder).
    """

    uri: str

    def get(self, key: str) -> bytes:
        """Read an object. :raises KeyError: when there is none."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object, atomically."""

    def put_file(self, key: str, path: Path) -> None:
        """Write or replace an object with what a local file holds, atomically and without loading it."""

    def local(self, key: str) -> AbstractContextManager[Path]:
        """An object as a local file, for a block; it stays as it is, even if another one takes its place.

        :raises KeyError: when there is none.
        """

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless one is there. Returns whether this call wrote it."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under exactly this key."""

    def modified(self, key: str) -> dt.datetime | None:
        """When an object was last written (UTC); ``None`` when there is none."""

    def folders(self, prefix: str = "") -> list[str]:
        """Names of what lies directly below ``prefix/`` and has objects below it, sorted."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys below ``prefix/``, sorted."""

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int, dt.datetime]]:
        """Key, bytes and time of writing (UTC) of everything below ``prefix/``, in no order."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""

    def prune(self, prefix: str) -> None:
        """Remove folders below ``prefix``, and itself, that hold nothing any more; a bucket has none."""


class FileStore:
    """A folder. Writes go to a temporary file in the same folder and are renamed or linked into place.

    The temporary file of a writer that was killed is removed by the next one of the same object.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = root.as_uri()

    def path(self, key: str) -> Path:
        """Where an object lies on disk."""
        return self.root / _checked(key)

    def get(self, key: str) -> bytes:
        try:
            return self.path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise KeyError(key) from None

    def put(self, key: str, data: bytes) -> None:
        with self._written(key, lambda f: f.write(data)) as temporary:
            temporary.replace(self.path(key))

    def put_file(self, key: str, path: Path) -> None:
        with (
            path.open("rb") as source,
            self._written(key, lambda f: shutil.copyfileobj(source, f, 1 << 20)) as temporary,
        ):
            temporary.replace(self.path(key))

    @contextlib.contextmanager
    def local(self, key: str) -> Iterator[Path]:
        path = self.path(key)
        if not path.is_file():
            raise KeyError(key)
        with claimed(path.with_name(f".{path.name}.local"), folder=True) as folder:
            own = folder / path.name
            try:
                os.link(path, own)  # a name of our own: whoever replaces the object leaves these bytes alone
            except FileNotFoundError:
                raise KeyError(key) from None
            except OSError:  # a file system without hard links
                shutil.copyfile(path, own)
            yield own

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self.path(key)
        if path.exists():
            return False
        with self._written(key, lambda f: f.write(data)) as temporary:
            try:
                os.link(temporary, path)  # fails when the name is taken, unlike rename
            except FileExistsError:
                return False
        return True

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def modified(self, key: str) -> dt.datetime | None:
        try:
            return dt.datetime.fromtimestamp(self.path(key).stat().st_mtime, dt.UTC)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def folders(self, prefix: str = "") -> list[str]:
        base = self.path(prefix.rstrip("/")) if prefix else self.root
        return sorted(p.name for p in base.iterdir() if p.is_dir()) if base.is_dir() else []

    def list(self, prefix: str = "") -> Iterator[str]:
        base = self.path(prefix.rstrip("/")) if prefix else self.root
        if not base.is_dir():
            return iter(())
        found = []
        for folder, below, names in os.walk(base):
            below[:] = [name for name in below if not name.startswith(".")]
            place = Path(folder).relative_to(self.root).as_posix()
            start = "" if place == "." else f"{place}/"
            found += [f"{start}{name}" for name in names if not name.startswith(".")]
        return iter(sorted(found))

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int, dt.datetime]]:
        for folder, _, names in os.walk(self.path(prefix.rstrip("/")) if prefix else self.root):
            for name in names:
                path = Path(folder) / name
                with contextlib.suppress(FileNotFoundError):  # removed while we look
                    found = path.stat()
                    at = dt.datetime.fromtimestamp(found.st_mtime, dt.UTC)
                    yield path.relative_to(self.root).as_posix(), found.st_size, at

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self.path(key).unlink()

    def prune(self, prefix: str) -> None:
        for folder, _, _ in os.walk(self.path(prefix), topdown=False):
            with contextlib.suppress(OSError):  # not empty, or gone
                Path(folder).rmdir()

    @contextlib.contextmanager
    def _written(self, key: str, write: Callable[[BinaryIO], Any]) -> Iterator[Path]:
        """A temporary file beside the object, with the data safely on disk."""
        path = self.path(key)
        with claimed(path.with_name(f".{path.name}.part")) as temporary:
            with temporary.open("wb") as f:
                write(f)
                f.flush()
                os.fsync(f.fileno())
            temporary.chmod(0o644)
            yield temporary


class S3Store:
    """A bucket and prefix. One PUT is atomic in S3; ``put_if_absent`` is the ``If-None-Match: *`` condition."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self.uri = f"s3://{bucket}/{self.prefix}".rstrip("/")

    @cached_property
    def client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=settings().s3_endpoint)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{_checked(key)}" if self.prefix else _checked(key)

    def get(self, key: str) -> bytes:
        try:
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
        except self.client.exceptions.NoSuchKey:
            raise KeyError(key) from None
        return body

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def put_file(self, key: str, path: Path) -> None:
        self.client.upload_file(str(path), self.bucket, self._key(key), Config=self._transfer)  # parts, made whole last

    @contextlib.contextmanager
    def local(self, key: str) -> Iterator[Path]:
        from botocore.exceptions import ClientError

        with tempfile.TemporaryDirectory(prefix="perennial-") as folder:
            own = Path(folder) / key.rsplit("/", 1)[-1]
            try:
                self.client.download_file(self.bucket, self._key(key), str(own), Config=self._transfer)
            except ClientError as e:
                if e.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    raise KeyError(key) from None
                raise
            yield own

    @property
    def _transfer(self) -> Any:
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(max_concurrency=2)  # each holds a part of 8 MB

    def put_if_absent(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        for attempt in range(10):
            try:
                self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
            except ClientError as e:
                status = e.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 412:
                    return False
                if status != 409:
                    raise
                time.sleep(0.05 * 2**attempt)  # S3 could not decide between two writers: it says to ask again
            else:
                return True
        raise ConflictError(f"{self.uri}/{key} was being written by others ten times in a row; run this again")

    def exists(self, key: str) -> bool:
        return self.modified(key) is not None

    def modified(self, key: str) -> dt.datetime | None:
        from botocore.exceptions import ClientError

        try:
            head = self.client.head_object(Bucket=self.bucket, Key=self._key(key))
        except ClientError as e:
            if e.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        at: dt.datetime = head["LastModified"]
        return at

    def folders(self, prefix: str = "") -> list[str]:
        found = [p["Prefix"] for page in self._pages(prefix, Delimiter="/") for p in page.get("CommonPrefixes", [])]
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def list(self, prefix: str = "") -> Iterator[str]:
        for key, _, _ in self.sizes(prefix):
            yield key

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int, dt.datetime]]:
        cut = len(self.prefix) + 1 if self.prefix else 0
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                yield item["Key"][cut:], item["Size"], item["LastModified"]

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        start = self._key(prefix.rstrip("/")) if prefix else self.prefix
        pages = self.client.get_paginator("list_objects_v2")
        yield from pages.paginate(Bucket=self.bucket, Prefix=f"{start}/" if start else "", **options)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def prune(self, prefix: str) -> None:
        pass


def _checked(key: str) -> str:
    if not key or any(part.startswith(".") or not part for part in key.split("/")):
        raise UsageError(
            f"{key!r} is not a key: names separated by /, none of them empty, '..' or beginning with a dot"
        )
    return key


def open_store(uri: str) -> Store:
    """The store for a URI.

    :raises UsageError: for a scheme that is neither ``file`` nor ``s3``.
    """
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return FileStore(Path(unquote(parsed.path)))
    if parsed.scheme == "s3":
        return S3Store(parsed.netloc, parsed.path)
    raise UsageError(f"{uri} is not a place that Perennial can write to: use file:// or s3://")


def join(uri: str, *parts: str) -> str:
    """``join("s3://b/x", "runs", "1")`` is ``s3://b/x/runs/1``."""
    return "/".join([uri.rstrip("/"), *(p.strip("/") for p in parts)])


def to_json(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8, NaN refused. Digests are taken of this."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def plain(value: Any) -> Any:
    """``value`` as JSON can say it: numbers that are none (NaN, infinite) become null, numpy's become Python's."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def storage_options(uri: str) -> dict[str, str] | None:
    """What ``deltalake`` needs to reach ``uri``; ``None`` for local files. Credentials come from the environment."""
    if not uri.startswith("s3://"):
        return None
    options = {"aws_conditional_put": "etag"}
    endpoint = settings().s3_endpoint
    if endpoint:
        options |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}
    return options
