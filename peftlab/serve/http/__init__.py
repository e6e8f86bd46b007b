"""The HTTP server: OpenAI's API over an engine, see docs/serving.md."""

from peftlab.serve.http.app import create_app
from peftlab.serve.http.settings import Settings

__all__ = ["Settings", "create_app"]
