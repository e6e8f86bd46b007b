"""peftlab: adapt one frozen language model in many ways, compare them fairly, serve them together.

torch takes seconds to import and half of the commands never need it, so it is imported at its first
use, see `later`.
"""

import logging

from peftlab.later import import_later

import_later("torch")
# transformers imports it where it is installed, and it tells of a kernel that it could download.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
