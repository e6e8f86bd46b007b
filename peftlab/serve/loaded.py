"""One version of an adapter in memory, ready to have rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from peftlab.edits import Edits, fingerprint, tensors_of
from peftlab.errors import InputError
from peftlab.generation.owner import Owner, bare, common_lead, prepare
from peftlab.methods.adaptation import Adaptation
from peftlab.serve import prompt
from peftlab.serve.errors import PromptTooLong
from peftlab.tasks import Encoded, Example, Template
from peftlab.tasks.example import nowhere_begun
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.serve.request import ServeRequest

_log = logging.getLogger(__name__)

# Two sources with nothing in common: what their prompts share is the template's own.
_PROBES = ("a", "7 Zebras?")


@dataclass(frozen=True)
class RowLimits:
    """What a request has to fit into.

    Attributes:
        rows: most of a request. positions: most of a row, its adapter's prefix and its reply
            included.
        prompt: most tokens of a prompt, template included; None means as many as fit.
    """

    rows: int
    positions: int
    prompt: int | None = None


@dataclass(eq=False)
class Starts:
    """Edits whose rows are to begin with what can be computed beforehand.

    Attributes:
        owners: the ways to start a row, the longest common start first; empty until `prepare`.
        prompts: two that have nothing in common but the template.
        fingerprint: of whose keys and values a row's first tokens are, see `edits.fingerprint`;
            "", the base's, also where the edits begin at the cue.
    """

    edits: Edits
    prompts: list[tuple[int, ...]]
    owners: list[Owner] = field(default_factory=list)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.edits) if self.edits.begin == "row" else ""

    def prepare(self, model: FrozenLM) -> None:
        """Run what all rows start with through the model, once.

        That is a soft prompt before the text, and the template's own text where it comes first.
        """
        self.owners = [prepare(model, self.edits, self.prompts)]
        pseudo = next((i for i, token in enumerate(self.prompts[0]) if token >= 0), 0)
        if len(self.owners[0].lead) > pseudo:  # a source may change how the text before it is cut
            self.owners.append(prepare(model, self.edits, self.prompts[:1]))

    def owner(self, row: Encoded, model: FrozenLM, whole: bool) -> Owner:
        """The owner of a row: the longest start that is the row's own.

        The bare base of one in which the edits begin nowhere.

        Args:
            whole: no text is to be read beforehand.
        """
        if row.begin is None:
            return bare(model)
        if whole:
            return self.owners[-1]
        ids = row.ids
        return next(
            owner
            for owner in self.owners
            if ids[: len(owner.lead)] == owner.lead and len(ids) > len(owner.lead)
        )


@dataclass(eq=False)
class LoadedAdapter:
    """An adapter's edits and, once prepared, what its rows start with.

    Attributes:
        starts: one, of a mixture one an expert.
        size: bytes of its tensors, prepared starts included.
    """

    name: str
    version: int
    method: str
    template: Template
    edits: Edits
    starts: list[Starts] = field(default_factory=list)
    size: int = 0

    @classmethod
    def make(
        cls, name: str, version: int, adaptation: Adaptation, model: FrozenLM
    ) -> LoadedAdapter:
        """Check an adaptation and turn it into edits.

        Raises:
            InputError: what `Adaptation.edits` refuses. (Numbers that are not finite would reach
                other rows through the memory that they share.)
        """
        edits = adaptation.edits(model)
        template = edits.template or adaptation.template
        template.end_id(model.tokenizer)  # refuse a tokenizer without one now
        made = cls(name, version, adaptation.method.name, template, edits)
        probes = made._probes(model)
        made.starts = [
            Starts(own, [probe.rows[number].ids for probe in probes])
            for number, own in enumerate(edits.each)
        ]
        if not any(common_lead(start.prompts) for start in made.starts):
            made.prepare(model)  # nothing to run
        made.size = made._bytes()
        return made

    @property
    def is_ready(self) -> bool:
        """Whether rows can begin."""
        return all(start.owners for start in self.starts)

    @property
    def fingerprints(self) -> frozenset[str]:
        """Of whose keys and values its rows' first tokens are."""
        return frozenset(start.fingerprint for start in self.starts)

    def prepare(self, model: FrozenLM) -> None:
        """Run what all rows start with through the model, once."""
        for start in self.starts:
            start.prepare(model)
        self.size = self._bytes()

    def _probes(self, model: FrozenLM) -> list[Encoded]:
        prompts = []
        for text in _PROBES:
            try:
                example = Example(text, (), _AnyField())
                prompts.append(
                    self.template.encode(model.tokenizer, example, None, model.shape.context)
                )
            except InputError as error:
                raise InputError(f"{self.name!r} has no room for a source: {error}") from error
        return prompts

    def owners(self, row: Encoded, model: FrozenLM, whole: bool = False) -> list[Owner]:
        """The owner of each of a prompt's rows; the log tells where the edits begin nowhere.

        Args:
            whole: rows are to read all of their text, so that there are scores of it.
        """
        if row.begins_nowhere:
            _log.warning("%s: %s", self.name, nowhere_begun(1, 1))
        return [
            start.owner(own, model, whole) for start, own in zip(self.starts, row.rows, strict=True)
        ]

    def encode(self, model: FrozenLM, request: ServeRequest, limits: RowLimits) -> Encoded:
        """The request's prompt.

        Raises:
            PromptTooLong: says by how much. InputError: more experts than rows, or see
                `prompt.encode`.
        """
        if len(self.starts) > limits.rows:
            raise InputError(
                f"{self.name!r} mixes {len(self.starts)} adaptations, a slot each, and there are "
                f"{limits.rows} slots here: serve with --slots {len(self.starts)} or more"
            )
        if len(self.starts) > 1 and request.prompt_logprobs is not None:
            raise InputError(
                f"{self.name!r} mixes adaptations that read prompts of their own, so there are no "
                "log-probabilities of one prompt: leave echo out"
            )
        taken = self.edits.prefix_length + request.max_new_tokens
        left = max_row_tokens(limits.positions, taken=taken)
        most = left if limits.prompt is None else min(left, limits.prompt)
        source = self._without_excess(model, request, limits, most)
        example = prompt.example(source) if request.truncate else None
        if example is not None:
            return self.template.encode(model.tokenizer, example, None, most)
        encoded = prompt.encode(self.template, model, source)
        if encoded.longest <= most:
            return encoded
        raise self._too_long(request, limits, most, f"{encoded.longest:,}")

    def _without_excess(
        self, model: FrozenLM, request: ServeRequest, limits: RowLimits, most: int
    ) -> prompt.Source:
        """The source as it is to be encoded: of one that is far too long, what may be kept."""
        template, source = self.template, request.source
        if template.beside:  # each cuts as its own template has it
            return source
        example, kept = prompt.example(source), template.source_tokens
        cuts = example is not None and (request.truncate or kept is not None)
        hangs_on_all = template.shots is not None  # those are chosen by the whole source
        in_a_frame = kept is not None and not cuts  # a chat, whose text is cut inside of it
        if (cuts and hangs_on_all) or in_a_frame:
            return source
        text = prompt.longest_text(template, source)
        part = prompt.part_of_far_too_long(template, model, text, max(most, kept or 0))
        if part is None:
            return source
        if not cuts or example is None:
            raise self._too_long(request, limits, most, f"over {2 * max(1, most):,}")
        return replace(example, source=part)

    def _too_long(
        self, request: ServeRequest, limits: RowLimits, most: int, tokens: str
    ) -> PromptTooLong:
        own = self.edits.prefix_length
        left = max_row_tokens(limits.positions, taken=own + request.max_new_tokens)
        return PromptTooLong(
            f"the prompt has {tokens} tokens, and there is room for {max(0, most):,}: "
            + (
                "the longest prompt that is taken here"
                if most != left
                else f"{limits.positions:,} positions less {request.max_new_tokens:,} for the "
                f"reply and {own} for {self.name!r} itself"
            )
            + "; shorten it, ask for fewer tokens, or allow it to be truncated"
        )

    def ends_of(self, model: FrozenLM, request: ServeRequest) -> tuple[int, ...]:
        """The tokens that end the reply."""
        return prompt.ends(self.template, model.tokenizer, request.source)

    def _bytes(self) -> int:
        stores = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for edits in (
                self.edits,
                *(owner.edits for start in self.starts for owner in start.owners),
            )
            for tensor in tensors_of(edits)
        }
        return sum(stores.values())


class _AnyField(dict[str, str]):
    """Answers every column of a template, so that probes can be encoded with any."""

    def __missing__(self, key: str) -> str:
        return "x"

    def __contains__(self, key: object) -> bool:
        return True
