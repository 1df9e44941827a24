"""What tells a scene from others of its name, and from itself after a change, without reading all of it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import unicodedata
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from segshrink.version import __version__

# Bytes at the start and at the end of a file that are looked at.
_SAMPLE = 1 << 16
# Files beside a scene that don't change its pixels.
_HARMLESS = (".aux.xml", ".ovr")
# Keys of a query that say who may read, and until when: they change while the file stays the same, and are secret.
_SIGNATURE = re.compile(
    r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|"
    r"(access_?)?token|api_?key|auth(orization)?|password|sig",
    re.IGNORECASE,
)
# Those of Azure's shared access signatures, which are so short that they mean it only beside "sig".
_AZURE = frozenset(
    ("sv", "ss", "srt", "sr", "sp", "st", "se", "sip", "spr", "skoid", "sktid", "skt", "ske", "sks", "skv")
)
_SECONDS = 20


def local_identity(path: Path, files: Iterable[str]) -> dict[str, Any]:
    """Tell what a local scene is.

    Args:
        path: The scene.
        files: All files that it is read from, such as a VRT's sources, masks and world files.

    Returns:
        JSON-able: name, size, time, and hashes of a sample of its bytes and of the other files' names, sizes and times.
    """
    found = path.stat()
    with path.open("rb") as stream:
        sample = stream.read(_SAMPLE)
        stream.seek(max(0, found.st_size - _SAMPLE))
        sample += stream.read(_SAMPLE)
    others = []
    for name in sorted(set(files)):
        other = Path(name)
        if other != path and not name.endswith(_HARMLESS) and other.exists():
            others.append((other.name, other.stat().st_size, other.stat().st_mtime_ns))
    return {
        "name": plain_name(path.name),
        "bytes": found.st_size,
        "modified_ns": found.st_mtime_ns,
        "sample": hashlib.sha256(sample).hexdigest(),
        "others": hashlib.sha256(json.dumps(others).encode()).hexdigest(),
    }


def remote_identity(url: str) -> dict[str, Any]:
    """Tell what the scene at a URL is, without what is secret in the URL.

    Returns:
        JSON-able: the address with its port, a hash of its query but for signatures, and what its server says of the
        file's size and version (None of s3, gs and az, and of a server that doesn't).
    """
    address = urlsplit(url)
    parts = [part for part in address.query.split("&") if part]
    keys = [unquote(part.partition("=")[0]) for part in parts]
    azure = _AZURE if "sig" in keys else frozenset()
    counting = [
        part for part, key in zip(parts, keys, strict=True) if not _SIGNATURE.fullmatch(key) and key not in azure
    ]
    place = address.netloc.rpartition("@")[2]
    return {
        "url": f"{address.scheme}://{place}{address.path}",
        "query": hashlib.sha256("&".join(counting).encode()).hexdigest() if counting else None,
        **_version(url, address),
    }


def plain_name(name: str) -> str:
    """Return a file name that every program can read: bytes that aren't UTF-8 are taken for Latin-1, controls go."""
    if any("\udc80" <= letter <= "\udcff" for letter in name):  # as Python decodes such bytes
        with suppress(UnicodeEncodeError):
            name = name.encode(errors="surrogateescape").decode("latin-1")
    return "".join("_" if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in name)


def _version(url: str, address: SplitResult) -> dict[str, Any]:
    """Ask for one byte, which signed URLs allow more often than HEAD, and read what the server says of the file."""
    version: dict[str, Any] = {"bytes": None, "version": None}
    if address.scheme.lower() not in ("http", "https"):
        return version
    user, _, place = address.netloc.rpartition("@")
    headers = {"Range": "bytes=0-0", "User-Agent": f"segshrink/{__version__}"}
    if user:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(user).encode()).decode()}"
    try:
        request = urllib.request.Request(address._replace(netloc=place, fragment="").geturl(), headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            of_all = answer.headers.get("Content-Range", "").rpartition("/")[2] or answer.headers.get("Content-Length")
            version["bytes"] = int(of_all) if of_all and of_all.isdecimal() else None
            version["version"] = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    except (OSError, ValueError, http.client.HTTPException):
        pass  # GDAL reports what it can't read
    return version
