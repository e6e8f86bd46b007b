"""What an instruction model is asked by default: the request in words, by the kind of task.

Such a model, given a bare row, does not know what is wanted of it, so a bare row is no fair
baseline on it (`hard_prompt`). The kind shows in the columns that rows are made of.
"""

from __future__ import annotations

from collections.abc import Sequence

GENERIC = "Write the output for the following input."
_ASKS_ITSELF = {"instruction", "prompt"}  # sources that are requests already
_SUMMARIES = {"summary", "summaries", "highlights", "abstract", "tldr"}
_ANSWERS = {"answer", "answers"}
_REPLIES = {"response", "completion", "reply"}
_RECORDS = {
    *("meaning_representation", "mr", "tripleset", "modified_triple_sets", "triples", "table"),
    *("record", "records", "data", "linearized_input"),
}
_NAMELESS = {"target", "targets", "tgt", "output", "outputs", "reference", "references"}
_NAMELESS |= {"human_reference", "text", "target_text", "output_text", "ref", "label", "labels"}
_NAMELESS |= {"chosen", "translation"}
_LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "de": "German", "en": "English", "es": "Spanish",
    "fi": "Finnish", "fr": "French", "hi": "Hindi", "it": "Italian", "ja": "Japanese",
    "ko": "Korean", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "tr": "Turkish", "uk": "Ukrainian", "zh": "Chinese",
}  # fmt: skip


def request(source: Sequence[str], target: str, labels: Sequence[str] | None) -> str:
    """The words for a task with these columns and class labels; empty where sources are requests.

    source: the columns that it is joined of. target: the column, with dots where it lies inside
    another (`translation.de`).
    """
    sources = {_last(name) for name in source}
    wanted = _last(target)
    if sources & _ASKS_ITSELF:
        return ""
    if labels:
        return f"Label the following text. Answer with one of: {', '.join(labels)}."
    if wanted in _LANGUAGES and sources & _LANGUAGES.keys():
        return f"Translate the following text into {_LANGUAGES[wanted]}."
    if wanted in _SUMMARIES:
        return "Summarize the following text."
    if wanted in _ANSWERS or "question" in sources:
        return "Answer the following question."
    if sources & _RECORDS:
        return "Put the following data into words."
    if wanted in _REPLIES:
        return "Reply to the following message."
    if wanted not in _NAMELESS:
        return f"Write the {wanted.replace('_', ' ')} of the following text."
    return GENERIC


def _last(column: str) -> str:
    """`de` of `translation.de`, `answers` of `answers.text`."""
    *outer, last = column.lower().split(".")
    return outer[-1] if last in ("text", "value") and outer else last
