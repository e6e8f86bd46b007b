"""What a run trains and validates on: encoded rows, their order, and the kept trunk below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.pasts import continued
from peftlab.token_limits import max_row_tokens
from peftlab.training.budget import Budget
from peftlab.training.config import TrainConfig
from peftlab.training.rows import Order, Rows
from peftlab.training.token_file import Kept
from peftlab.trunk import Trunk, TrunkStore

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Example, Task, Template

_WORTH_KEEPING = 1.5  # passes over the rows from which keeping the trunk's activations pays
_LOOKED_AT = 64  # rows whose mean length says how many steps a budget of tokens will be


@dataclass(frozen=True)
class Data:
    """Both splits under one template.

    Attributes:
        steps: about how many there will be; None where a clock decides.
        trunk, validation_trunk: kept activations, where that pays.
        pasts: where what comes before the cue is kept, for edits that begin there.
    """

    rows: Rows
    validation: Rows
    order: Order
    steps: int | None
    trunk: Trunk | None
    validation_trunk: Trunk | None
    pasts: TrunkStore | None = None

    def kept_parts(self, rows_a_step: int) -> int:
        """How many parts are computed once and kept: chunks of rows, or sources; 0: none is."""
        chunks = 0 if self.trunk is None else self.trunk.chunks
        if self.pasts is None:
            return chunks
        visits = len(self.rows) if self.steps is None else self.steps * rows_a_step
        return chunks + min(self.rows.sources, visits)

    @classmethod
    def of(
        cls,
        model: FrozenLM,
        task: Task,
        template: Template,
        config: TrainConfig,
        edits: Edits,
        store: TrunkStore | None,
    ) -> Data:
        """Encode a task for edits whose untouched blocks, given a store, are run once a row."""
        limit = max_row_tokens(model.shape.context, config.max_length, edits.prefix_length)
        folder = store.folder if store is not None and store.disk else None
        data = cls.alone(task, template, config, model.tokenizer, limit, folder)
        rows, steps = data.rows, data.steps
        if edits.begin == "cue" and model.is_sharded:
            raise InputError(
                "begin=cue reads sources where they are needed, and the blocks of a sharded base "
                "run in all processes at once: use begin=row, or --shard never"
            )
        if template.invocation:
            raise InputError(
                "this template begins at certain token ids, as an imported aLoRA does; train on "
                "one that begins at its cue"
            )
        continued_rows = None
        if edits.begin == "cue":
            data = replace(data, pasts=store)
            continued_rows = partial(continued, model, store=store)
        # The last block is resumed at even where only the head changes: its kept tokens are few.
        block = min(edits.lowest_block(model.shape), model.shape.layers - 1)
        # Whose rows are kept already differs by process, and a sharded base is run by all together.
        kept = store is not None and block >= 1 and config.fast and not model.is_sharded
        if store is None or not kept or rows.contrasts:  # options are rows of their own
            return data
        # Where a clock decides, rows are taken to come again.
        again = steps is None or steps * config.rows_a_step >= _WORTH_KEEPING * len(rows)
        every = config.evaluate_every
        often = bool(every) and (steps is None or steps // every > 1)
        return replace(
            data,
            trunk=Trunk(model, rows, block, store, continued_rows) if again else None,
            validation_trunk=(
                Trunk(model, data.validation, block, store, continued_rows) if often else None
            ),
        )

    @classmethod
    def alone(
        cls,
        task: Task,
        template: Template,
        config: TrainConfig,
        tokenizer: Any,
        limit: int,
        folder: Path | None = None,
    ) -> Data:
        """Encode a task in rows of at most `limit` tokens.

        Args:
            folder: in which those of a large task are kept; None: one of this process's own.
        """
        pairs: Sequence[tuple[Example, str]] = task.pairs("validation")
        if config.validation_limit is not None:
            pairs = pairs[: config.validation_limit]
        encoding = (template, tokenizer, limit, task.choices)
        places = None if folder is None else folder / "tokens"
        rows = Rows(task.pairs("train"), *encoding, kept=Kept(places, "train"))
        validation = Rows(pairs, *encoding, kept=Kept(places, "validation"))
        order = Order(len(rows), config.rows_a_step, config.seed)
        return cls(rows, validation, order, _steps(config, rows), None, None)

    def validated_under(self, template: Template) -> Data:
        """The same data, its validation split in another template."""
        return replace(self, validation=self.validation.under(template))


def _steps(config: TrainConfig, rows: Rows) -> int | None:
    budget = Budget.of(config, len(rows))
    return budget.steps(config, lengths(rows) if budget.kind == "tokens" else [])


def lengths(rows: Rows) -> list[int]:
    """Tokens that are read of some rows."""
    return [len(rows[i].ids) - 1 for i in range(min(len(rows), _LOOKED_AT))]
