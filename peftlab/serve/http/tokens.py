"""The text and the bytes that single tokens stand for, as OpenAI tells log-probabilities."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from functools import lru_cache
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    """What each token of a tokenizer stands for."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        decoder = str(tokenizer.backend_tokenizer.decoder)
        self._byte_level = "ByteLevel" in decoder
        self._special = set(tokenizer.all_special_ids)

    def data(self, token: int) -> bytes:
        """The bytes of a token; a character may need several tokens."""
        if token in self._special:
            return str(self._tokenizer.convert_ids_to_tokens(token)).encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # the model's vocabulary may be padded beyond the tokenizer's
            return b""
        if self._byte_level:
            table = _from_characters()
            if all(character in table for character in piece):
                return bytes(table[character] for character in piece)
        if match := _BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return str(piece).replace("▁", " ").encode()

    def text(self, token: int) -> str:
        """The token's text, or its bytes where these are no whole characters."""
        data = self.data(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class Offsets:
    """Where in a reply each of its tokens begins, in characters.

    Args:
        bare: it begins without white space, as all do that do not echo their prompt.
    """

    def __init__(self, bare: bool = True) -> None:
        self._decoder = getincrementaldecoder("utf-8")("ignore")
        self._place, self._begun = 0, not bare

    def next(self, data: bytes) -> int:
        """The place of the token that comes next."""
        place, text = self._place, self._decoder.decode(data)
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        self._place += len(text)
        return place


@lru_cache
def _from_characters() -> dict[str, int]:
    """Byte-level tokenizers write every byte as a character of its own."""
    return {character: byte for byte, character in bytes_to_unicode().items()}
