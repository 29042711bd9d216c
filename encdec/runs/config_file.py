"""The file `config.json` of a run: settings, digests and checksums, written and read.

It holds a checksum of itself and of the held-out pairs, so that a change by hand is noticed.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from encdec import config as configs
from encdec.config import RunConfig
from encdec.config.checks import fits
from encdec.config.search import MOST_TOKENS
from encdec.files import parse_json, shortened, write_text
from encdec.types import InputError

FORMAT = 3
"""The number of the format of `config.json`; it grows when a field changes its name or meaning."""

_VERSIONS = {1: "0.1", 2: "0.2"}
"""The version of this library that opens runs of each earlier format."""


def write(path: Path, fields: dict[str, Any], checksums: dict[str, str]) -> None:
    """Writes the file.

    Args:
      path: the file.
      fields: JSON values.
      checksums: those of other files, by their names.

    Raises:
      OSError: it cannot be written.
    """
    tree = {"format": FORMAT, **fields}
    itself = {path.name: checksum(json.dumps(tree, sort_keys=True))}
    tree["checksums"] = itself | checksums
    write_text(path, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")


def read(path: Path) -> tuple[dict[str, Any], RunConfig]:
    """Reads the file: its fields, and the settings among them.

    Raises:
      InputError: it is damaged, was changed by hand, or has the format of another version.
    """
    try:
        tree = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(tree, dict) or "format" not in tree:
        other = ""
        if isinstance(tree, dict) and "model_type" in tree:
            other = (
                f", but of a model that the hub library saved: `encdec import {path.parent} --run "
                "ANOTHER` makes a run of it"
            )
        raise InputError(f"{path} is not the config.json of a run{other}")
    if (has := tree["format"]) != FORMAT:
        version = _VERSIONS.get(has) if isinstance(has, int) else None
        opens = f"encdec {version} opens it" if version else "a newer encdec may open it"
        raise InputError(
            f"{path} is of run format {shortened(has)}, and this encdec opens format {FORMAT}: "
            f"{opens}"
        )
    kinds: dict[str, Any] = {
        "config": dict,
        "corpus": str | None,
        "extra_length": int,
        "vocabularies": list,
        "init": str | None,
    }
    if missing := kinds.keys() - tree.keys():
        raise InputError(f"{path} is damaged: {', '.join(sorted(missing))} missing")
    for name, kind in kinds.items():
        if not fits(tree[name], kind):
            raise InputError(f"{path} is damaged: {name} = {shortened(tree[name])} cannot be")
    if not 0 <= (extra := tree["extra_length"]) <= MOST_TOKENS:
        raise InputError(f"{path} is damaged: extra_length = {shortened(extra)} cannot be")
    digests, checksums = tree["vocabularies"], tree.get("checksums", {})
    if len(digests) != 2 or not isinstance(checksums, dict):
        raise InputError(f"{path} is damaged: its vocabularies or checksums are not as written")
    config = configs.from_json(tree["config"])  # which names a field that is wrong
    rest = {name: value for name, value in tree.items() if name != "checksums"}
    check_checksum(path, json.dumps(rest, sort_keys=True), checksums)
    return tree, config


def check_checksum(path: Path, text: str, checksums: dict[str, str]) -> None:
    """Raises InputError if a file is not as it was written; earlier runs have no checksums."""
    expected = checksums.get(path.name)
    if expected is not None and checksum(text) != expected:
        raise InputError(
            f"{path} has been changed (its checksum differs), so results would not be those of the "
            "run: copy the file again from the original run folder, or take it as it is by "
            'deleting "checksums" in config.json'
        )


def checksum(text: str) -> str:
    """SHA-256 (hex) of the text of a file."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
