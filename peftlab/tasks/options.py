"""What a user can say about how a task is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from peftlab.errors import InputError
from peftlab.options import (
    LARGEST_SEED,
    SMALLEST_SEED,
    Called,
    Checked,
    Option,
    entries,
    made,
    names,
    plainly,
    refuse_unknown,
)
from peftlab.tasks.choices import ChoiceLoss, ChoiceScore
from peftlab.tasks.example import Loss
from peftlab.tasks.schema import SCHEMA

_Rows = Annotated[int, Ge(1), Le(2**63 - 1)]
COLUMNS = ("source", "target")


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """The choices of `Task.load`; None leaves a choice to the task or to the usual.

    Each can be given as `-o NAME=VALUE`; `limit`, `test_limit` and `metrics` have flags of their
    own. `columns` is {"source": column or "column+column", "target": column}, also given as
    `source` and `target`; a recipe takes one source column, and keeps its form.
    """

    limit: Annotated[
        _Rows | None,
        Option("Training pairs, drawn by seed, and the first so many examples of other splits."),
    ] = None
    test_limit: Annotated[
        _Rows | None, Option("The first so many test examples, whatever the limit says.")
    ] = None
    preview: Annotated[
        _Rows | None,
        Option("Read no more than the first so many rows of each file, for a look."),
    ] = None
    seed: Annotated[
        int,
        Ge(SMALLEST_SEED),
        Le(LARGEST_SEED),
        Option("Of the drawn pairs, and of splits that have to be cut."),
    ] = 0
    template: Annotated[str | None, Option("The text of the template.")] = None
    instruction: Annotated[str | None, Option("The request in words, for hard prompts.")] = None
    cue: Annotated[str | None, Option("The words before the target of the usual template.")] = None
    columns: Mapping[str, str] | None = None
    data: Annotated[
        str | Path | None,
        Option("A folder or hub id to take a recipe's rows from, laid out as its hub data set is."),
    ] = None
    config: Annotated[str | None, Option("Of a hub data set.")] = None
    revision: Annotated[str | None, Option("Of a hub data set.")] = None
    metrics: Annotated[
        tuple[str, ...] | None, Option("By name, with commas: rouge1,rougeL,bleu.", parse=names)
    ] = None
    max_new_tokens: Annotated[_Rows | None, Option("Most tokens of an output.")] = None
    labels: Annotated[
        tuple[str, ...] | None, Option("The class labels, with commas.", parse=names)
    ] = None
    json_schema: Annotated[str | None, SCHEMA] = None
    choices: Annotated[
        tuple[str, ...] | None,
        Option(
            "What the target is one of, with commas, or the column that holds each row's list; by "
            "default the class labels. The likeliest is taken.",
            parse=names,
        ),
    ] = None
    choose: Annotated[
        bool | None,
        Option("Take the likeliest option; false writes labels as any text."),
    ] = None
    choice_score: Annotated[
        ChoiceScore,
        Option(
            "Of an option's log-likelihood: its sum, its part a char, byte or token, or what it "
            "gains over the option alone (mutual)."
        ),
    ] = "sum"
    choice_loss: Annotated[
        ChoiceLoss,
        Option("Train on the right option alone, or on its probability among all (contrast)."),
    ] = "right"
    truncate: Annotated[
        Literal["start", "end"] | None, Option("Which end of a source that is too long is cut.")
    ] = None
    source_tokens: Annotated[
        Annotated[int, Ge(0)] | None, Option("Most tokens of a source that are kept.")
    ] = None
    chat: Annotated[
        bool | None,
        Option(
            "Rows stand in the chat template of the base's tokenizer, by default where it has one; "
            "the usual template is then the bare source."
        ),
    ] = None
    system: Annotated[
        str | None, Option("The system prompt of that chat, in the place of the template's own.")
    ] = None
    conversations: Annotated[
        bool | None,
        Option(
            "Rows are conversations, by default where the columns are messages, conversations, "
            "system or history; false reads a source and a target and nothing else."
        ),
    ] = None
    loss: Annotated[
        Loss,
        Option("Of a conversation: train on its last reply, or on all replies of the assistant."),
    ] = "last"
    drop_blank: Annotated[
        bool,
        Option(
            "Leave out rows with an empty source or target, null, the label -1, or turns that are "
            "no conversation, instead of refusing them."
        ),
    ] = False
    long: Annotated[
        Literal["cut", "skip", "refuse"],
        Option("Of rows that do not fit whole: cut the sources, skip them, or refuse them all."),
    ] = "cut"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in self.columns or {}:
            if key not in COLUMNS:
                raise InputError(
                    f'columns names "{key}"; "source" and "target" were expected. Other columns '
                    "are named in the template, as {column}."
                )
        if self.system is not None and self.chat is False and self.conversations is not True:
            raise InputError("system stands in a chat, and chat=false is given: leave one out.")
        asked = self.choices or (self.choice_score, self.choice_loss) != ("sum", "right")
        if self.choose is False and asked:
            raise InputError("choose=false writes replies, and choices are given: leave one out.")
        if self.loss == "replies" and self.conversations is False:
            raise InputError("loss=replies is of conversations, and conversations=false is given.")
        if self.template is not None and self.cue is not None:
            raise InputError(
                "Both a template and a cue are given. The cue is part of the usual template only: "
                "write it into the template, before {target}."
            )

    @classmethod
    def of(cls, values: Mapping[str, Any], called: Called = plainly) -> Options:
        """Return options from values by name, as Python or a command line gives them.

        Raises `InputError` for an unknown name and for a value that cannot be used.
        """
        known = [*entries(cls), "columns", *COLUMNS]
        refuse_unknown(values, known, "A task")
        columns = {key: values[key] for key in COLUMNS if values.get(key) is not None}
        both = {**(values.get("columns") or {}), **columns} or None
        return made(cls, values, called, columns=both)
