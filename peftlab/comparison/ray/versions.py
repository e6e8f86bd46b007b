"""What must be the same on all machines of a cluster. Sent by value: needs nothing of ours."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("peftlab", "torch", "transformers")


def versions() -> dict[str, str]:
    """The versions here; `missing` for what is not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = _of_a_checkout(package)
    return found


def _of_a_checkout(package: str) -> str:
    try:
        return str(__import__(package).__version__)
    except ImportError:
        return "missing"


def differences(mine: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """`torch 2.9 instead of 2.13`, for each package whose version is another."""
    return [
        f"{name} {theirs.get(name, 'missing')} instead of {version}"
        for name, version in mine.items()
        if theirs.get(name) != version
    ]
