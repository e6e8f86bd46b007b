"""One version of an adapter in memory, ready to have rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
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
        positions: most of a row, its adapter's prefix and its reply included.
        prompt: most tokens of a prompt, template included; None means as many as fit.
    """

    positions: int
    prompt: int | None = None


@dataclass(eq=False)
class LoadedAdapter:
    """An adapter's edits and, once prepared, what its rows start with.

    Attributes:
        owners: the ways to start a row, the longest common start first; empty until `prepare`.
        size: bytes of its tensors, prepared starts included.
        starts: prompts that have nothing in common but the template.
        fingerprint: of whose keys and values a row's first tokens are, see `edits.fingerprint`;
            "", the base's, also where the edits begin at the cue.
    """

    name: str
    version: int
    method: str
    template: Template
    edits: Edits
    owners: list[Owner] = field(default_factory=list)
    size: int = 0
    starts: list[tuple[int, ...]] = field(default_factory=list)
    fingerprint: str = ""

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
        made.fingerprint = fingerprint(edits) if edits.begin == "row" else ""
        made.starts = made._probes(model)
        if not common_lead(made.starts):
            made.prepare(model)  # nothing to run
        made.size = made._bytes()
        return made

    def prepare(self, model: FrozenLM) -> None:
        """Run what all rows start with through the model, once.

        That is a soft prompt before the text, and the template's own text where it comes first.
        """
        self.owners = [prepare(model, self.edits, self.starts)]
        pseudo = next((i for i, token in enumerate(self.starts[0]) if token >= 0), 0)
        if len(self.owners[0].lead) > pseudo:  # a source may change how the text before it is cut
            self.owners.append(prepare(model, self.edits, self.starts[:1]))
        self.size = self._bytes()

    def _probes(self, model: FrozenLM) -> list[tuple[int, ...]]:
        prompts = []
        for text in _PROBES:
            try:
                example = Example(text, (), _AnyField())
                prompts.append(
                    self.template.encode(model.tokenizer, example, None, model.shape.context).ids
                )
            except InputError as error:
                raise InputError(f"{self.name!r} has no room for a source: {error}") from error
        return prompts

    def owner(self, row: Encoded, model: FrozenLM) -> Owner:
        """The owner of a row: the longest start that is the row's own.

        The bare base, which the log tells, of one in which the edits begin nowhere.
        """
        if row.begin is None:
            _log.warning("%s: %s", self.name, nowhere_begun(1, 1))
            return bare(model)
        ids = row.ids
        return next(
            owner
            for owner in self.owners
            if ids[: len(owner.lead)] == owner.lead and len(ids) > len(owner.lead)
        )

    def encode(self, model: FrozenLM, request: ServeRequest, limits: RowLimits) -> Encoded:
        """The request's prompt.

        Raises:
            PromptTooLong: says by how much. InputError: see `prompt.encode`.
        """
        taken = self.edits.prefix_length + request.max_new_tokens
        left = max_row_tokens(limits.positions, taken=taken)
        most = left if limits.prompt is None else min(left, limits.prompt)
        source = self._without_excess(model, request, limits, most)
        example = prompt.example(source) if request.truncate else None
        if example is not None:
            return self.template.encode(model.tokenizer, example, None, most)
        encoded = prompt.encode(self.template, model, source)
        if len(encoded.ids) <= most:
            return encoded
        raise self._too_long(request, limits, most, f"{len(encoded.ids):,}")

    def _without_excess(
        self, model: FrozenLM, request: ServeRequest, limits: RowLimits, most: int
    ) -> prompt.Source:
        """The source as it is to be encoded: of one that is far too long, what may be kept."""
        template, source = self.template, request.source
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
            for edits in (self.edits, *(owner.edits for owner in self.owners))
            for tensor in tensors_of(edits)
        }
        return sum(stores.values())


class _AnyField(dict[str, str]):
    """Answers every column of a template, so that probes can be encoded with any."""

    def __missing__(self, key: str) -> str:
        return "x"

    def __contains__(self, key: object) -> bool:
        return True
