"""Penn Treebank tokens of English text, as CIDEr and COCO ROUGE-L are defined on.

The COCO caption evaluation runs Stanford's PTBTokenizer (CoreNLP 3.4.1, `-lowerCase`) and then
drops punctuation. This is a regular expression that was written, by trying that program on words
and texts, to give the same tokens: contractions are split (do n't, john 's), hyphenated words and
abbreviations stay whole, brackets become -lrb- and the like, currency signs become $ and #.
docs/metrics.md says how often the two differ.
"""

from __future__ import annotations

import re

PUNCTUATION = frozenset(
    [
        "''",
        "'",
        "``",
        "`",
        "...",
        ";",
        "-LRB-",
        "-RRB-",
        "-LCB-",
        "-RCB-",
        ".",
        "?",
        "!",
        ",",
        ":",
        "-",
        "--",
    ]
)
"""What COCO drops. Brackets are lower-cased before that (-lrb-), so they stay, as officially."""

_ABBREVIATIONS = (
    "adj adm adv al ala alex apr assoc aug ave bhd blvd brig bros calif cf cie co col conn corp cos"
    " cpl ct dak dec dept det dr drs ens esq est etc ext feb fla fri ft ga gen gov hon inc ind jan"
    " jos jr jul jun kan ky lt ltd maj mar md mfg mme mo mon mont mr mrs ms mt mtg neb nev nov oct"
    " penn pfc ph plc prof pte pty pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr"
    " st ste sys tel thu tue tues univ va vs vt wed wis wm wyo"
).replace(" ", "|")
_STATES = "Ark|ARK|Az|AZ|Del|DEL|Ill|ILL|La|LA|Mass|MASS|Miss|MISS|Ore|ORE|Pa|PA|Tex|TEX|Wash|WASH"
_BEFORE_NUMBERS = "art|ca|figs?|nos?|op|pp|prop"
_SENTENCE_STARTS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last"
    " Many More Now Once One Other Our She Since So Some Such That The Their Then There These They"
    " This We What When While Yet You"
).replace(" ", "|")

_LETTER = r"[^\W\d_²³¹⁰-₟¼-¾]"
_WORD = rf"(?:{_LETTER}|\d)+"
_END = rf"(?!{_LETTER}|\d)"
_QUOTE = r"['’]"
_CLITIC = rf"(?i:{_QUOTE}(?:s|m|d|re|ll|ve){_END})"
_NOT = rf"(?i:n['’`]t{_END})"
_HYPHENATED = rf"{_WORD}(?:-{_LETTER}+{_END}){{0,2}}"
_DOTTABLE = rf"{_LETTER}(?:{_LETTER}|\d)*"
_URL_END = r"[^\s\"<>|(){}.,;:!?'\-]"

_TOKEN = re.compile(
    "|".join(
        [
            # the commonest case, for speed: a plain word between blanks
            r"(?<!\S)(?!can|gon|wan|got|lem|gim)[a-z]+(?=\s)",
            # mark-up, addresses, names of accounts and tags
            r"</?[a-zA-Z][^<>,\n]*>|&(?:amp|lt|gt|quot|apos|nbsp|\#\d+);",
            rf"(?i:https?)://(?=[^\s/]*\.)[^\s\"<>|(){{}}]*{_URL_END}",
            rf"www\.(?:[^\s\"<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}(?:/[^\s\"<>|()]*{_URL_END})?",
            rf"(?:[a-zA-Z][\w\-]*\.)+(?:com|net|org|edu){_END}(?:/[^\s\"<>|()]*{_URL_END})?",
            rf"{_WORD}(?:[.\-_]{_WORD})*@{_WORD}(?:[.\-]{_WORD})*",
            rf"@[a-zA-Z]\w*|[cCfF]\#|\#{_LETTER}+|[\#*_]{{2,}}",
            # telephone numbers, dates, signs that belong to capitals
            r"\(\d{3}\)(?=[ ]?\d{3}[\- ]?\d{4})|\d{1,2}[\-/]\d{1,2}[\-/]\d{2,4}(?!\d)",
            rf"(?:{_QUOTE}\d\ds?{_END})|[A-Z]*\$|[A-Z]+[&+][A-Z]+|[cC]\+\+",
            # abbreviations and other words with dots inside
            rf"(?<!\w)(?:{_WORD}-)?[A-Za-z](?:\.[A-Za-z])+\.(?:-{_WORD}|(?!\w))|(?i:\bph\.d\.)",
            # words joined by signs
            rf"{_HYPHENATED}(?:/{_HYPHENATED}){{1,2}}|(?i:\b(?:anti|pro)-(?!\w))",
            rf"{_WORD}(?:[.,]{_WORD})?(?:[\-_]{_WORD})+",
            rf"{_DOTTABLE}(?:[.!?]{_DOTTABLE})+",
            rf"(?<![\w'’])[A-Za-z]\.(?![A-Za-z])(?!\s*(?:{_SENTENCE_STARTS})\s)",
            rf"(?:(?i:\b(?:{_ABBREVIATIONS}))|\b(?:{_STATES}))\.",
            rf"(?i:\b(?:{_BEFORE_NUMBERS})\.(?=\s*\d))|{_WORD}\.(?=[,;:])",
            # contractions, and apostrophes that belong to a word
            rf"(?i:can(?=not{_END})|(?:gon|wan)(?=na{_END})|got(?=ta{_END})|(?:lem|gim)(?=me{_END}))",
            rf"{_CLITIC}|{_NOT}|(?i:{_QUOTE}t(?=(?:is|was){_END}))",
            rf"(?i:{_QUOTE}(?:n{_QUOTE}?|em|cause|till?){_END})",
            rf"{_LETTER}+?(?={_NOT})",
            rf"(?i:y{_QUOTE}(?={_LETTER})|ol{_QUOTE}|[dlj]{_QUOTE}(?!\w)|(?:c{_QUOTE}mon|nor{_QUOTE}easter"
            rf"|cap{_QUOTE}n|li{_QUOTE}l|nat{_QUOTE}l){_END})",
            rf"(?i:[dlno]{_QUOTE}{_LETTER}{{2,}})",
            rf"{_LETTER}*[aeiou]{_QUOTE}(?!(?:ve|re|ll){_END})[aeiou]{_LETTER}*",
            # numbers, plain words, the rest
            rf"[\-+]?\d*(?:[.,:]\d+)+|{_WORD}|[\-+]\d+",
            r"\.(?:[ ]\.){2,}|\.{3,}|-{2,}|[?!]+|[:;=]-?[()DP](?!\w)|\S",
        ]
    )
)

_BRACKETS = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
}
_REWRITTEN = _BRACKETS | {
    "£": "#",
    "€": "$",
    "¢": "cents",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": "''",
    "&apos;": "'",
    "–": "--",
    "—": "--",
    "…": "...",
    '"': "''",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
}


def ptb_tokens(text: str) -> list[str]:
    """Lower-cased Treebank tokens of a text, without punctuation."""
    tokens = (_rewrite(found) for found in _TOKEN.findall(text))
    return [token for token in tokens if token not in PUNCTUATION]


def _rewrite(token: str) -> str:
    if token in _REWRITTEN:
        return _REWRITTEN[token]
    if token.startswith(".") and token.strip(". ") == "":
        return "..."
    if token.startswith("--"):
        return "--"
    if token[0] in "(:;=" and len(token) > 1:
        return "".join(_BRACKETS.get(sign, sign) for sign in token).lower()
    if token[0] == "’" and token[1:2].isdigit():
        return token.lower()
    return token.lower().replace("’", "'")
