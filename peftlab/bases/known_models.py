"""Configurations of well-known models, for use where neither weights nor a network are at hand.

`known_models.json` holds, group by group, what the models' own config.json files say of shape and
arithmetic: what a group shares, then one line a model. The tests hold every entry to the model's
published number of parameters.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from peftlab.bases import gguf, pretrained
from peftlab.errors import InputError, nearest

__all__ = ["config", "configuration", "names"]


def names() -> tuple[str, ...]:
    """The hub ids of all known models."""
    return tuple(_table())


def config(name: str) -> dict[str, Any]:
    """The configuration of a model, as its config.json has it.

    `name` is a hub id ("meta-llama/Llama-3.2-1B") or its last part, in any case ("llama-3.2-1b").
    Raises `InputError` with the nearest known name otherwise.
    """
    hub_id = _aliases().get(name.lower())
    if hub_id is None:
        raise InputError(
            f"{name!r} is not among the models whose configuration is known offline."
            f"{nearest(name.lower(), _aliases())} Known: {', '.join(names())}. "
            "For another model, give a folder that holds its config.json"
        )
    # Parsed anew for every caller, so that nobody's change reaches anybody else.
    return dict(json.loads(_table()[hub_id]))


def configuration(name: str) -> dict[str, Any]:
    """The configuration of a folder with a config.json, of a GGUF file, or of a known model.

    Raises:
        InputError: none of these, or a damaged file.
    """
    if gguf.is_gguf(name):
        values: dict[str, Any] = pretrained.read_config(name).to_dict()
        return values
    folder = Path(name)
    if not folder.is_dir():
        return config(name)
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no config.json, which a model's folder needs") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return values


@cache
def _table() -> dict[str, str]:
    """Hub id -> configuration as JSON text."""
    text = files("peftlab.bases").joinpath("known_models.json").read_text(encoding="utf-8")
    return {
        name: json.dumps({**group["shared"], **own})
        for group in json.loads(text)
        for name, own in group["models"].items()
    }


@cache
def _aliases() -> dict[str, str]:
    """Lower-case hub id and its last part -> hub id."""
    table: dict[str, str] = {}
    for name in _table():
        table[name.lower()] = table[name.lower().rsplit("/", 1)[-1]] = name
    return table
