"""Bases of several sizes for studies of scale, made on this machine when they are first wanted.

    python -m peftlab.demo.sizes [NAME …]

All of them have the bundled model's tokenizer, corpus and recipe with fewer steps, the same for
each, so that size alone differs. They are kept in `~/.cache/peftlab/bases`, or in the folder
`bases` of $PEFTLAB_CACHE.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from peftlab.demo.recipe import Recipe
from peftlab.errors import InputError, nearest
from peftlab.measure import tune_allocator

STEPS = 1000

_log = logging.getLogger(__name__)


def _sized(layers: int, width: int, heads: int) -> Recipe:
    return Recipe(steps=STEPS, layers=layers, width=width, heads=heads)


SIZES = {
    "demo-0.1m": _sized(2, 32, 2),
    "demo-0.3m": _sized(3, 64, 4),
    "demo-0.9m": _sized(3, 128, 4),
    "demo-2.2m": _sized(4, 192, 6),
    "demo-5.3m": _sized(6, 256, 8),
}
"""Names, as `--model` takes them, by their millions of parameters; 0.1 M to 5.3 M is 54 times."""


def folder(name: str, recipe: Recipe | None = None) -> Path:
    """Where the base of a name lies, or will lie; another recipe has another folder.

    Raises:
        InputError: there is no such size.
    """
    if name not in SIZES:
        raise InputError(f'No size "{name}"; there are {", ".join(SIZES)}.{nearest(name, SIZES)}')
    decides = {k: v for k, v in asdict(recipe or SIZES[name]).items() if k != "bf16"}
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    cache = Path(os.environ.get("PEFTLAB_CACHE") or Path.home() / ".cache" / "peftlab")
    return cache / "bases" / f"{name}-{digest[:8]}"


def is_made(name: str) -> bool:
    """Whether the base is here. Raises InputError as `folder` does."""
    return folder(name).is_dir()


def make(name: str, recipe: Recipe | None = None, report_every: int = 200) -> Path:
    """The folder of a base, which is trained first where it is not here; whole, or not there.

    Measured on one core with bf16 matrices: 75 s for the smallest, 12 minutes for the largest, by
    the time of single steps; on two cores about half of that.

    Raises:
        InputError: there is no such size.
    """
    from peftlab.demo.pretrain import pretrain

    target = folder(name, recipe)
    recipe = recipe or SIZES[name]
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as place:
        whole = Path(place) / "base"
        _log.info("%s is made: %d steps, in minutes, once", name, recipe.steps)
        pretrain(replace(recipe, bf16=_bf16_pays(recipe)), whole, report_every)
        try:
            whole.rename(target)
        except OSError:  # another process was faster
            if not target.is_dir():
                raise
    return target


def _bf16_pays(recipe: Recipe) -> bool:
    from peftlab.measure import choose_precision

    width = recipe.width
    return choose_precision([(width, 4 * width), (4 * width, width)], "cpu").name == "bf16"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SIZES))
    names = parser.parse_args(arguments).names or list(SIZES)
    for name in names:
        try:
            folder(name)
        except InputError as error:
            parser.error(str(error))
    tune_allocator()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in names:
        print(name, make(name), sep="\t")


if __name__ == "__main__":
    main()
