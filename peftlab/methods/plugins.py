"""Methods of other packages, found through the entry points of the group `peftlab.methods`.

A package names its method in its own pyproject.toml, and it is then known everywhere:

    [project.entry-points."peftlab.methods"]
    my_method = "my_package.my_module:MyMethod"
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract

from peftlab.errors import InputError
from peftlab.methods.base import REGISTRY, Method, register

GROUP = "peftlab.methods"


@cache
def load() -> tuple[str, ...]:
    """Enter all of them into the registry, once a process; returns their names.

    Raises:
        InputError: one cannot be imported, is no method, or has the name of another; names the
            package, since the mending is there.
    """
    entries = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return tuple(_entered(entry) for entry in entries)


def _entered(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist is not None else entry.module
    where = f"the method {entry.name!r} of the package {package} ({entry.value})"
    try:
        cls = entry.load()
    except Exception as error:  # whatever a foreign package does wrong
        raise InputError(
            f"{where} cannot be imported: {type(error).__name__}: {error}. Mend or uninstall it."
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Method)) or isabstract(cls):
        raise InputError(
            f"{where} is no method: a subclass of peftlab.methods.Method with `init`, `edits` and "
            "`stored` was expected."
        )
    if REGISTRY.get(entry.name) is cls:  # it has used @register itself
        return entry.name
    if entry.name in REGISTRY:
        raise InputError(f"{where} has the name of another method. Rename or uninstall it.")
    register(entry.name)(cls)
    return entry.name
