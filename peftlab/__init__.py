"""peftlab: adapt one frozen language model in many ways, compare them fairly, serve them together.

torch takes seconds to import and half of the commands never need it, so it is loaded at its first
use: `lazy_loader` puts a stand-in into `sys.modules` that becomes the real module when touched.
"""

import sys

import lazy_loader

if "torch" not in sys.modules:
    lazy_loader.load("torch")

__version__ = "0.1.0"
