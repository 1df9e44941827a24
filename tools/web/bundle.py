"""Put the parts of npm packages that web pages carry into the source tree: ``make web``, and every build of a wheel.

Versions and checksums are those of ``package-lock.json`` beside this file. The standard library suffices; no Node.
They aren't committed: 4 MB of binaries for each new version would stay in everybody's clone for good.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "src" / "segshrink" / "export" / "web" / "vendor"
# Package → its files that are taken.
PARTS = {
    "onnxruntime-web": ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"),
    "geotiff": ("dist-browser/geotiff.js",),
}
_RECORD = "packages.json"
_SECONDS = 60


def bundle(target: Path = TARGET) -> bool:
    """Fetch what isn't there yet, check it and write it gzipped, with a record of versions and checksums.

    Returns:
        Whether anything was fetched.

    Raises:
        OSError: The registry can't be reached.
        ValueError: A package isn't the one that was pinned.
    """
    locked = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    pinned = {name: {key: locked[f"node_modules/{name}"][key] for key in ("version", "integrity")} for name in PARTS}
    record = target / _RECORD
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) == pinned:
        return False
    target.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    for name, package in pinned.items():
        archive = _fetch(name, package["version"], package["integrity"])
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
            for part in PARTS[name]:
                content = files.extractfile(f"package/{part}")
                if content is None:
                    raise ValueError(f"{name} {package['version']} holds no {part}")
                (target / f"{Path(part).name}.gz").write_bytes(gzip.compress(content.read(), 9, mtime=0))
    record.write_text(json.dumps(pinned, indent=1) + "\n", encoding="utf-8")
    return True


def _fetch(name: str, version: str, integrity: str) -> bytes:
    """Return a package's archive, whose checksum npm writes as "sha512-" and base64."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
    with urllib.request.urlopen(f"{registry}/{name}/-/{name}-{version}.tgz", timeout=_SECONDS) as answer:  # noqa: S310
        archive: bytes = answer.read()
    algorithm, _, expected = integrity.partition("-")
    if hashlib.new(algorithm, archive).digest() != base64.b64decode(expected):
        raise ValueError(f"{name} {version} from {registry} has another checksum than package-lock.json says")
    return archive


if __name__ == "__main__":
    print(f"{TARGET}: {'fetched' if bundle() else 'nothing to fetch'}")
