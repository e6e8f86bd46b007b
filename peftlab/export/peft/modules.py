"""PEFT's names of modules: `target_modules` to linears and back.

PEFT matches a list's entries as whole names or endings (`c_proj` is two modules of a GPT-2 block),
a string as a regular expression.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING

import regex

from peftlab.errors import InputError, listed
from peftlab.export.peft.folder import PREFIX, PeftFolder

if TYPE_CHECKING:
    from peftlab.bases.shapes import Linear, ModelShape
    from peftlab.frozen.model import FrozenLM

_LARGEST = 10_000  # characters of an expression, and what its counted repeats multiply to
_SECONDS = 2.0  # for all expressions of a file against all of a base's modules
_LAYER = re.compile(r".*?\.[^.]*\.(?P<index>\d+)\.")


def endings(paths: Iterable[str], model: FrozenLM) -> list[str]:
    """The shortest endings that match these modules and no others of the model."""
    wanted = set(paths)
    others = [name for name, _ in model.model.named_modules() if name not in wanted]
    shortest = {_shortest(path, others) for path in wanted}
    return sorted(shortest)


def _shortest(path: str, others: Sequence[str]) -> str:
    parts = path.split(".")
    for start in range(len(parts) - 1, 0, -1):
        ending = ".".join(parts[start:])
        if not any(name == ending or name.endswith(f".{ending}") for name in others):
            return ending
    return path


class Expression:
    """A regular expression of an adapter's file; all of one file's share a time of `_SECONDS`.

    Python's own `re` can take years for a few characters, and holds the interpreter meanwhile.

    Raises:
        InputError: it cannot be read, is too large, or takes too long.
    """

    def __init__(self, folder: PeftFolder, pattern: str) -> None:
        self._folder, self._shown = folder, f"{folder.path.parent}: the expression {pattern!r:.60}"
        counts = [int(n) for n in re.findall(r"\d+", "".join(re.findall(r"\{[\d,]+\}", pattern)))]
        if len(pattern) > _LARGEST or prod(max(1, n) for n in counts) > _LARGEST:
            raise InputError(
                f"{self._shown} is too large: at most {_LARGEST:,} characters and repeats were "
                "expected"
            )
        try:
            with self._timed():
                self._compiled = regex.compile(pattern)
        except (regex.error, RecursionError) as error:
            raise InputError(f"{self._shown} cannot be read: {error}") from error

    def match(self, name: str) -> bool:
        """Whether all of a name matches."""
        with self._timed() as left:
            return self._compiled.fullmatch(name, timeout=left, concurrent=True) is not None

    @contextmanager
    def _timed(self) -> Iterator[float]:
        """Take from the file's time; gives what is left of it."""
        begun, left = time.monotonic(), _SECONDS - self._folder.seconds
        try:
            if left <= 0:
                raise TimeoutError
            yield left
        except TimeoutError as error:
            raise InputError(
                f"{self._shown} takes more than {_SECONDS:g} s to match the base's modules; give "
                "their names or endings"
            ) from error
        finally:
            self._folder.seconds += time.monotonic() - begun


class Patterns:
    """A setting that names modules: a list of names or endings, or one expression."""

    def __init__(self, folder: PeftFolder, setting: str) -> None:
        given = folder.config.get(setting) or []
        named = isinstance(given, list) and all(isinstance(ending, str) for ending in given)
        if not isinstance(given, str) and not named:
            folder.problems.append(f"{setting} is {given!r:.60}, expected names or an expression")
            given = []
        self._names = [] if isinstance(given, str) else given
        self._expression = Expression(folder, given) if isinstance(given, str) else None

    def match(self, path: str) -> bool:
        """Whether PEFT would say that a module is meant."""
        if self._expression is not None:
            return self._expression.match(path)
        return any(path == ending or path.endswith(f".{ending}") for ending in self._names)


def targeted(folder: PeftFolder) -> list[Linear]:
    """The linears that the configuration targets; what is targeted besides them is noted."""
    by_path = {linear.path: linear for linear in folder.model.shape.linears}
    pattern, excluded = folder.config.get("target_modules"), Patterns(folder, "exclude_modules")
    if not pattern or not isinstance(pattern, (str, list)):
        folder.problems.append(
            f"target_modules is {pattern!r:.60}, expected names or an expression"
        )
        return []
    if pattern == "all-linear":
        names = list(by_path)
    else:
        wanted, inside = Patterns(folder, "target_modules"), _in_layers(folder)
        modules = (name for name, _ in folder.model.model.named_modules())
        names = [name for name in modules if wanted.match(name) and inside(name)]
    names = [name for name in names if not excluded.match(name)]
    if not names:
        folder.problems.append(f"target_modules {pattern!r:.200} match no module of this base")
    strange = [name for name in names if name not in by_path]
    if strange:
        folder.problems.append(listed("targeted, but no linear of a block", strange))
    return [by_path[name] for name in names if name in by_path]


def _in_layers(folder: PeftFolder) -> Callable[[str], bool]:
    """Whether a module lies in one of the wanted blocks."""
    config = folder.config
    wanted, patterns = config.get("layers_to_transform"), config.get("layers_pattern") or []
    if wanted is None or wanted == [] or isinstance(config.get("target_modules"), str):
        return lambda _: True
    blocks, texts = (given if isinstance(given, list) else [given] for given in (wanted, patterns))
    if not all(type(b) is int for b in blocks) or not all(isinstance(p, str) for p in texts):
        folder.problems.append(
            f"layers_to_transform={wanted!r:.60}, layers_pattern={patterns!r:.60}: numbers of "
            "blocks, and names, were expected"
        )
        return lambda _: False
    if not texts:
        return lambda name: (m := _LAYER.match(name)) is not None and int(m["index"]) in blocks
    meant = [
        Expression(folder, rf"(?:|.*?\.){p}\.(?:{'|'.join(map(str, blocks))})\..*") for p in texts
    ]
    return lambda name: any(it.match(name) for it in meant)


def own_names(
    linears: Sequence[Linear], shape: ModelShape, by_layer: bool = True
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """`targets` and `layers` of our own that mean exactly these linears.

    A role where it has a linear of its own (`q`), else the module's name (`c_attn`), else paths.
    """
    wanted = {linear.path for linear in linears}
    blocks = sorted({linear.block for linear in linears})
    layers = tuple(blocks) if by_layer and len(blocks) < shape.layers else ()
    roles = {next(iter(x.parts)) if len(x.parts) == 1 else x.leaf for x in linears}
    for names in (roles, {x.leaf for x in linears}):
        try:
            targets = shape.targets(sorted(names), layers or None)
        except InputError:
            continue
        if {t.linear.path for t in targets if t.rows is None} == wanted and len(targets) == len(
            wanted
        ):
            return tuple(sorted(names)), layers
    return tuple(linear.path for linear in linears), ()


def key(path: str, name: str) -> str:
    """The name of a module's tensor in an adapter's file."""
    return f"{PREFIX}{path}.{name}"
