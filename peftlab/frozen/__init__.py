"""The frozen model: the one package that knows transformers' internals."""

import logging

# transformers imports bitsandbytes where it is installed, which tells of a kernel to be downloaded.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
