"""Claim: a damaged file costs one sentence, never a traceback: masks, polygons, YAML, model folders, metadata, fuzzed.

    python benchmarks/fuzz.py --minutes 60                # results beside the scripts
    python benchmarks/fuzz.py --minutes 1 --out /tmp/smoke

Atheris (``pip install "segshrink[fuzz]"``) looks for inputs that reach new code, from a sound file on: some bytes are
changed, cut out, doubled or replaced by words that are known to hurt. What a reader may do with it: read it, or raise
one of this package's errors, within five seconds of processor time. Each reader has a process of its own, so one that
dies is noted; the inputs of faults are kept in the JSON file, as hexadecimal digits.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from segshrink import ClassMap, __version__, build_model, load_dataset, load_model, load_recipe
from segshrink.errors import SegshrinkError
from segshrink.files import write_json, write_text
from segshrink.imagery import MaskOptions, read_mask
from segshrink.machine import describe_machine, last_words
from segshrink.model_description import ModelDescription
from segshrink.prediction.exported import read_description

RESULTS = Path(__file__).resolve().parent / "results"
SIDE, LONGEST = 24, 5.0
# What a process that explores runs: only what is imported in the block tells Atheris what it does.
EXPLORER = """
import pathlib, sys, atheris
with atheris.instrument_imports(include=["segshrink", "yaml"]):
    import fuzz
    reader, seconds, seed, home = sys.argv[1:]
    fuzz.explore(reader, seconds, seed, pathlib.Path(home))
"""
NOTES = "faults"
TRANSFORM = Affine(1, 0, 3e5, 0, -1, 2.8e6)
CLASSES = ClassMap.build([("ground", None, 0), ("roof", None, 1)])
COLORED = ClassMap.build([("ground", "#785A3C", None), ("roof", "#C82828", None)])
# Numbers, words and marks that have hurt parsers.
TOKENS = (
    *(b"NaN", b"-1", b"1e999", b"9" * 400, b"null", b"true", b'""', b"[]", b"{}", b"[" * 200, b"0", b"-0.0"),
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[31m", b"\r", b"*a", b"&a ", b"!!python/name:os.system", b"../" * 9),
)


@dataclass(frozen=True)
class Target:
    """A reader and a sound file for it."""

    suffix: str
    content: bytes
    read: Callable[[Path], object]


def encoded(picture: Image.Image, kind: str) -> bytes:
    """Return an image as the bytes of a file."""
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def geotiff(pixels: np.ndarray) -> bytes:
    """Return a mask on the ground as the bytes of a GeoTIFF."""
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 1, "dtype": "uint8", "compress": "deflate"}
    with MemoryFile() as memory:
        with memory.open(**profile, crs="EPSG:32640", transform=TRANSFORM) as raster:
            raster.write(pixels, 1)
        return bytes(memory.read())


def targets(home: Path) -> dict[str, Target]:
    """Return the readers; ``home`` gets what they need beside the fuzzed file."""
    pixels = np.kron(np.eye(2, dtype=np.uint8), np.ones((SIDE // 2, SIDE // 2), np.uint8))
    image = home / "image.tif"
    image.write_bytes(geotiff(pixels))
    ring = [[3e5, 2.8e6], [3e5 + 9, 2.8e6], [3e5 + 9, 2.8e6 - 9], [3e5, 2.8e6]]
    feature = {
        "type": "Feature",
        "properties": {"kind": "roof"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32640"}}
    polygons = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    options = MaskOptions(field="kind", background="ground")
    network = build_model("unet", CLASSES, options={"width": 2, "depth": 2})
    network.save(home / "model")
    description = network.description.to_dict()
    data = {
        "name": "d",
        "root": ".",
        "images": "*/images/*.png",
        "masks": "*/masks/*.png",
        "classes": ["a", "b"],
        "split": {"random": 0.2},
    }
    learner = {"model": {"id": "unet"}, "training": {"epochs": 2}, "terms": [{"name": "dice", "weight": 0.5}]}
    recipe = {"name": "r", "data": data, "crops": {"size": 32}, "teacher": learner, "student": learner}

    def read_folder(path: Path) -> object:
        folder = home / "model"
        (folder / "config.json").write_bytes(path.read_bytes())
        return load_model(folder)

    def read_metadata(path: Path) -> ModelDescription:
        return read_description(path.read_bytes().decode(errors="surrogateescape"), path)

    return {
        "mask of values, PNG": Target(
            ".png", encoded(Image.fromarray(pixels), "PNG"), lambda path: read_mask(path, CLASSES)
        ),
        "mask of colors, PNG": Target(
            ".png", encoded(Image.fromarray(COLORED.colorize(pixels)), "PNG"), lambda path: read_mask(path, COLORED)
        ),
        "mask, GeoTIFF": Target(".tif", geotiff(pixels), lambda path: read_mask(path, CLASSES, image=image)),
        "polygons, GeoJSON": Target(
            ".geojson",
            json.dumps(polygons).encode(),
            lambda path: read_mask(path, CLASSES, image=image, options=options),
        ),
        "data set, YAML": Target(".yaml", yaml.safe_dump(data).encode(), load_dataset),
        "recipe, YAML": Target(".yaml", yaml.safe_dump(recipe).encode(), load_recipe),
        "model folder": Target(".json", (home / "model" / "config.json").read_bytes(), read_folder),
        "metadata of a file": Target(".json", json.dumps(description).encode(), read_metadata),
    }


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return a file with one to four changes."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(changed) + 1)
        end = min(len(changed), start + chance.choice((1, 1, 2, 4, 8, 32, len(changed))))
        kind = chance.randrange(5)
        if kind == 0 and changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[start:end]
        elif kind == 2:
            changed[start:start] = changed[start:end]
        elif kind == 3:
            changed[start:end] = chance.choice(TOKENS)
        else:
            changed[start:start] = chance.choice(TOKENS)
    return bytes(changed)


def fault_of(target: Target, content: bytes, path: Path) -> str | None:
    """Let a reader read; return what it did that it may not do."""
    path.write_bytes(content)
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except SegshrinkError as error:
        if "\x1b" in str(error) or "\n" in str(error).strip():
            return f"a message with control characters: {str(error)[:200]!r}"
    except Exception as error:  # any that isn't the program's own is the fault that is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}: {str(error)[:200]!r}"
    if (seconds := time.process_time() - start) > LONGEST:
        return f"took {seconds:.0f} s of processor time"
    return None


def to_markdown(record: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    head = (
        f"Written by `python benchmarks/fuzz.py`, {record['created']}, segshrink {record['segshrink']}, "
        f"{record['machine']['cpu']}, Python {record['machine']['python']}, GDAL {record['gdal']}, "
        f"Atheris {record['atheris']}; seed {record['seed']}, {record['minutes']:g} minutes in all."
    )
    rows = [f"| {name} | {row['inputs']:,} | {len(row['faults'])} |" for name, row in record["rows"].items()]
    told = [f"- {name}: {found['fault']}" for name, row in record["rows"].items() for found in row["faults"]]
    lines = ["# Damaged files", "", head, "", "| reader | inputs | kinds of faults |", "| --- | ---: | ---: |", *rows]
    return "\n".join([*lines, *(["", *told] if told else []), ""])


def explore(reader: str, seconds: str, seed: str, home: Path) -> None:
    """Let a reader read for some seconds; ends the process. The kinds of faults are noted in ``home``, a line each."""
    import atheris

    target = targets(home)[reader]
    corpus = home / "corpus"
    corpus.mkdir()
    (corpus / "sound").write_bytes(target.content)
    known: set[str] = set()

    def judge(content: bytes) -> None:
        fault = fault_of(target, content, home / f"fuzzed{target.suffix}")
        if fault is not None and fault not in known:
            known.add(fault)
            with (home / NOTES).open("a", encoding="utf-8") as stream:
                found = {"fault": fault.replace(str(home), ""), "input": content.hex()}
                stream.write(json.dumps(found) + "\n")

    def change(content: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        return mutated(content, chance)[:longest] if chance.random() < 0.5 else atheris.Mutate(content, longest)

    limits = [f"-max_total_time={seconds}", f"-seed={int(seed) + 1}", f"-artifact_prefix={home}/", "-rss_limit_mb=4096"]
    atheris.Setup([reader, *limits, "-max_len=65536", str(corpus)], judge, custom_mutator=change)
    atheris.Fuzz()


def explored(reader: str, seconds: int, seed: int) -> dict[str, Any]:
    """Let a process of its own explore a reader; return the number of inputs and the kinds of faults."""
    with tempfile.TemporaryDirectory() as name:
        notes = Path(name) / NOTES
        notes.touch()
        command = [sys.executable, "-c", EXPLORER, reader, str(seconds), str(seed), name]
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, errors="replace", check=False
        )
        faults = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
        inputs = re.findall(r"^#(\d+)", done.stderr, re.MULTILINE) + re.findall(r"Done (\d+) runs", done.stderr)
        if done.returncode:
            faults.append({"fault": f"the process died: {last_words(done.returncode, done.stderr.encode())}"})
    return {"inputs": max(map(int, inputs), default=0), "faults": faults}


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit status is 1 where a reader did what it may not do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="for all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        readers = list(targets(Path(name)))
    rows: dict[str, dict[str, Any]] = {}
    for reader in readers:
        rows[reader] = explored(reader, round(60 * given.minutes / len(readers)), given.seed)
        print(f"{reader}: {rows[reader]['inputs']} inputs, {len(rows[reader]['faults'])} kinds of faults", flush=True)
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "segshrink": __version__,
        "machine": describe_machine(threads=1),
        "gdal": rasterio.__gdal_version__,
        "atheris": version("atheris"),
        "seed": given.seed,
        "minutes": given.minutes,
        "rows": rows,
    }
    write_json(given.out / "fuzz.json", record)
    write_text(given.out / "fuzz.md", to_markdown(record))
    return int(any(row["faults"] for row in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
