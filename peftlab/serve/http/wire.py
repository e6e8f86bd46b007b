"""What both completion endpoints take: OpenAI's fields, and a few of this server's own.

A field that OpenAI's API has and that is not served here is refused unless it asks for nothing;
one that nobody has is refused as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from peftlab.errors import nearest
from peftlab.serve.http.settings import Settings
from peftlab.serve.request import MOST_STOPS
from peftlab.tasks import Decoding
from peftlab.tasks.task import COLDEST

_LARGE = 1 << 31  # more of anything that is counted is a mistake
_IGNORED = frozenset(
    {
        "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
        "service_tier", "store", "user",
    }
)  # fmt: skip
NO_BIAS: dict[str, tuple[Any, ...]] = {"logit_bias": ({},)}


class Wire(BaseModel):
    """A JSON object of a request; null is as good as leaving a field out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    unserved: ClassVar[Mapping[str, tuple[Any, ...]]] = {}  # by name, the values that ask nothing

    @model_validator(mode="before")
    @classmethod
    def _only_served(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given  # pydantic says what it expected
        kept = {}
        for name, value in given.items():
            if name in cls.model_fields:
                kept[name] = value
            elif name in cls.unserved:
                if value is not None and value not in cls.unserved[name]:
                    raise refused(name, f"{name} is not served here; leave it out")
            elif name not in _IGNORED and value is not None:
                near = nearest(name[:64], cls.model_fields)
                raise refused(name, f"Unrecognized request argument supplied: {name[:64]!r}.{near}")
        return kept


def refused(name: str, said: str) -> PydanticCustomError:
    """What a validator raises of a field, in words that a client is told."""
    return PydanticCustomError("unserved_field", "{said}", {"said": said, "field": name[:64]})


def expected(fits: Callable[[Any], bool], words: str) -> BeforeValidator:
    """One error for a field that may be of several types, instead of one a type."""

    def check(value: Any) -> Any:
        if not fits(value):
            raise ValueError(f"{words} was expected")
        return value

    return BeforeValidator(check)


def _is_stop(value: Any) -> bool:
    if value is None:
        return True
    several = value if isinstance(value, list) else [value]
    return len(several) <= MOST_STOPS and all(isinstance(one, str) and one for one in several)


def _is_temperature(value: Any) -> bool:
    return not isinstance(value, float) or value == 0 or value >= COLDEST


Stop = Annotated[
    str | list[str] | None,
    expected(_is_stop, f"a string, or a list of at most {MOST_STOPS}, none of them empty,"),
]
Temperature = Annotated[
    float,
    Field(ge=0, le=2),
    expected(_is_temperature, f"0, or {COLDEST} to 2,"),
]
TokenId = Annotated[int, Field(ge=0, le=_LARGE)]
Seed = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]


class StreamOptions(Wire):
    """include_usage: a last chunk tells the numbers of tokens."""

    unserved = {"include_obfuscation": (False,)}

    include_usage: bool | None = None


class Asked(Wire):
    """The fields that completions and chats share.

    Beside OpenAI's there are vLLM's: top_k, min_p, min_tokens, repetition_penalty, stop_token_ids;
    no_repeat_ngram and truncate are this server's own. truncate: cut a source
    that is too long, as in training, instead of refusing it. response_format is OpenAI's, and
    structured_outputs vLLM's (json, json_object, regex, choice or grammar): the reply follows it.
    """

    model: str = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=_LARGE)
    min_tokens: int | None = Field(default=None, ge=0, le=_LARGE)
    n: int | None = Field(default=None, ge=1, le=128)
    seed: Seed | None = None
    stop: Stop = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=_LARGE)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    stop_token_ids: list[TokenId] | None = Field(default=None, max_length=MOST_STOPS)
    no_repeat_ngram: int | None = Field(default=None, ge=0, le=_LARGE)
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    truncate: bool | None = None

    @model_validator(mode="after")
    def _streams(self) -> Asked:
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options", "stream_options is allowed where stream is true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def usage(self) -> bool:
        """Whether a stream tells the numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def decoding(self, settings: Settings) -> Decoding:
        """Greedy at temperature 0; `top_p` or `top_k` without a temperature sample at 1."""
        temperature = self.temperature
        if temperature is None:
            chance = self.top_p is not None or bool(self.top_k) or bool(self.min_p)
            temperature = settings.temperature or float(chance)
        held = Decoding(
            no_repeat_ngram=self.no_repeat_ngram or 0,
            repetition_penalty=self.repetition_penalty or 1.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
        )
        if temperature == 0:
            return held
        return replace(
            held,
            sample=True,
            temperature=temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
        )


class PromptDetails(BaseModel):
    """cached_tokens: of the prompts, known from earlier requests and not read again."""

    cached_tokens: int


class Usage(BaseModel):
    """Numbers of tokens. A prompt counts once, with its template and pseudo tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
