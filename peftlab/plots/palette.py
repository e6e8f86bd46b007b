"""Colours of pages and plots, light and dark; text keeps the contrast of WCAG AA."""

from __future__ import annotations

import re
from collections.abc import Mapping

COLOURED = 8  # methods with a colour and a mark of their own: the best ones; the others are grey

LIGHT: Mapping[str, str] = {
    "paper": "#fcfcfa",
    "panel": "#ffffff",
    "sunken": "#f3f3ef",
    "ink": "#1b1d21",
    "muted": "#5d626b",
    "line": "#dddcd5",
    "axis": "#8b8f96",
    "accent": "#1f5fc4",
    "note": "#fdf3dc",
    "note-ink": "#6b4700",
    "good": "#dcf1e4",
    "good-ink": "#0e5a33",
    "bad": "#fbe3e3",
    "bad-ink": "#98201f",
    "c0": "#2563c9",
    "c1": "#c2410c",
    "c2": "#14804f",
    "c3": "#9333a8",
    "c4": "#a16207",
    "c5": "#0e7490",
    "c6": "#be185d",
    "c7": "#5b6b1c",
    "rest": "#858a92",
    "p0": "#2c4f8f",
    "p1": "#7a9ad6",
    "p2": "#c9962f",
    "p3": "#8a5a9e",
}

DARK: Mapping[str, str] = {
    "paper": "#131519",
    "panel": "#1a1d22",
    "sunken": "#22262c",
    "ink": "#e9eaec",
    "muted": "#a5abb5",
    "line": "#32373f",
    "axis": "#7d848f",
    "accent": "#8db7ff",
    "note": "#3a2f15",
    "note-ink": "#f3d48e",
    "good": "#173a28",
    "good-ink": "#9be0b9",
    "bad": "#452023",
    "bad-ink": "#ffb4b0",
    "c0": "#7fb0ff",
    "c1": "#ff9a6b",
    "c2": "#58d19a",
    "c3": "#d79bea",
    "c4": "#e6bb4c",
    "c5": "#5fcfe6",
    "c6": "#ff8fbc",
    "c7": "#bccd6c",
    "rest": "#858b95",
    "p0": "#86aef5",
    "p1": "#4a6496",
    "p2": "#dfb257",
    "p3": "#b98bcc",
}


def declarations(theme: Mapping[str, str]) -> str:
    """The colours as CSS variables."""
    return "".join(f"--{name}:{value};" for name, value in theme.items())


def schemes() -> str:
    """CSS of both themes: what the system says, unless the root's `data-theme` says otherwise."""
    light, dark = declarations(LIGHT), declarations(DARK)
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light])"
        f"{{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
    )


def resolved(css: str, theme: Mapping[str, str] = LIGHT) -> str:
    """The same CSS without variables, for programs that draw SVG but know none."""
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda match: theme[match[1]], css)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours `#rrggbb`, 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
