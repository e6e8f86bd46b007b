"""The page at `/`: one source, the replies of chosen adaptations side by side.

Plain HTML, CSS and JavaScript modules, sent from memory. Its policy allows scripts, styles and
requests of this server alone, and no text to be made into HTML (Trusted Types), so that a source or
a reply could do nothing even if the page had a mistake.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import FastAPI, HTTPException, Response

from peftlab.plots import palette
from peftlab.serve.described import example
from peftlab.serve.http.served import Served

_FILES = Path(__file__).parent / "files"
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def mount(app: FastAPI) -> None:
    """Add the page and its files, which need no API key, and its examples, which do."""
    parts = {path.name: path.read_bytes() for path in _FILES.iterdir() if path.suffix in _TYPES}
    parts["colours.css"] = palette.schemes().encode()
    page = (_FILES / "index.html").read_bytes()

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return Response(page, media_type="text/html", headers=_HEADERS)

    @app.get("/playground/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in parts:
            raise HTTPException(404, f"the playground has no file {name[:100]!r}")
        kind = _TYPES[Path(name).suffix]
        return Response(parts[name], media_type=kind, headers=_HEADERS)

    @app.get("/v1/models/{name}/example", include_in_schema=False)
    async def source(name: str) -> dict[str, str | None]:
        state: Served = app.state.served
        state.library.check(name)
        folder = next(it.folder for it in state.library.adapters() if it.name == name)
        return {"source": await asyncio.to_thread(example, folder)}
