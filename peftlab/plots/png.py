"""Figures as PNG, by resvg (the extra `png`); SVG files need nothing."""

from __future__ import annotations

from importlib.util import find_spec

from peftlab.errors import InputError

ZOOM = 2.0  # pixels for each unit of the SVG: sharp on dense screens and in print at half size


def available() -> bool:
    """Whether the extra is installed."""
    return find_spec("resvg_py") is not None


def of_svg(svg: str) -> bytes:
    """The picture as PNG on white.

    Raises:
        InputError: the extra is not installed.
    """
    if not available():
        raise InputError("PNG needs the extra png: pip install 'peftlab[png]'; the SVG needs none")
    import resvg_py

    # resvg takes no browser's `system-ui`: any sans-serif font of the system stands in for it.
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=ZOOM, background="#ffffff"))
