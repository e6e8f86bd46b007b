"""Penn Treebank tokens of English text, as CIDEr and COCO ROUGE-L are defined on.

The COCO caption evaluation runs Stanford's PTBTokenizer (CoreNLP 3.4.1, `-lowerCase`) and then
drops punctuation. This is a regular expression that was written, by trying that program on words
and texts, to give the same tokens: contractions are split (do n't, john 's), hyphenated words and
abbreviations stay whole, brackets become -lrb- and the like, currency signs become $ and #, and
signs that the program does not know (`ptb_characters`) end a word and leave nothing.
docs/metrics.md says how often the two differ.
"""

from __future__ import annotations

import re

from peftlab.metrics.ptb_characters import DELETED, MARKS

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
    r" Many More Mr\. Ms\. Now Once One Other Our She Since So Some Such That The Their Then There"
    " These They This We What When While Yet You"
).replace(" ", "|")

_LETTER = r"[^\W\d_²³¹⁰⁴-⁹₀-₉¼-¾⅓-⅞①-⒛⓪-⓿❶-➓]"
_PLAIN = rf"(?:{_LETTER}|\d)+"
_SIGN = rf"(?:{_LETTER}|[{MARKS}]|&[aeiouAEIOU](?:acute|grave|uml);)"
"""A letter, a combining mark or a letter that is spelled as an entity."""
_WORD = rf"(?:{_SIGN}(?:{_SIGN}|\d)*|\d(?:{_LETTER}|\d)*)"
_END = rf"(?!{_SIGN}|\d)"
_HYPHEN = r"[\-_֊‐‑]"
_QUOTE = r"(?:['’\x92]|&apos;)"
_CLITIC = rf"(?i:{_QUOTE}(?:s|m|d|re|ll|ve){_END})"
_NOT = rf"(?i:n(?:{_QUOTE}|`)t{_END})"
_SLASHABLE = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_LETTERS = rf"{_SIGN}(?:{_SIGN}|\d)*"
_DELETED = re.compile(rf"[\x00-\x08\x0e-\x1b\x7f{DELETED}]")
_URL_END = r"[^\s\"<>|(){}.,;:!?'\-]"

_TOKEN = re.compile(
    "|".join(
        [
            # the commonest case, for speed: a plain word between blanks
            r"(?<!\S)(?!can|gon|wan|got|lem|gim)[a-z]+(?=\s)",
            # mark-up, addresses, names of accounts and tags
            r"</?[a-zA-Z][^<>,\n]*>|&(?:(?i:amp|lt|gt|quot)|nbsp|[mn]dash|MD|\#\d+);",
            r"&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq);",
            rf"(?i:https?)://(?=[^\s/]*\.)[^\s\"<>|(){{}}]*{_URL_END}",
            rf"www\.(?:[^\s\"<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}(?:/[^\s\"<>|()]*{_URL_END})?",
            rf"(?:[a-zA-Z][\w\-]*\.)+(?:com|net|org|edu){_END}(?:/[^\s\"<>|()]*{_URL_END})?",
            r"[a-zA-Z0-9][^\s\"<>|(){}@]{0,99}@(?:[^\s\"<>|(){}.@]{1,99}\.)*[^\s\"<>|(){}.@]{1,99}",
            rf"@[a-zA-Z_][a-zA-Z_0-9]*|[cCfF]\#|\#{_SIGN}+|[\#*_]{{2,}}",
            # telephone numbers, dates, signs that belong to capitals
            r"\(\d{3}\)(?=[ ]?\d{3}[\- ]?\d{4})|\d{1,2}[\-/]\d{1,2}[\-/]\d{2,4}(?!\d)",
            rf"(?:{_QUOTE}\d\ds?{_END})|[A-Z]*\$|[A-Z]+(?:(?:[&+]|&(?i:amp);)[A-Z]+)+|[cC]\+\+",
            r"\d{1,4}⁄\d{1,4}|[⁺⁻₊₋]?(?:[²³¹⁰⁴-⁹]+|[₀-₉]+)",
            # abbreviations and other words with dots inside
            rf"(?<!\w)(?:{_PLAIN}-)?[A-Za-z](?:\.[A-Za-z])+\.(?:-{_PLAIN}|(?!{_LETTER}))|(?i:\bph\.d\.)",
            # words joined by signs
            rf"{_SLASHABLE}(?:/{_SLASHABLE}){{1,2}}|(?i:\b(?:anti|pro)-(?!\w))",
            r"[A-Za-z0-9]+(?:[.,][A-Za-z0-9]+)?(?:-[A-Za-z0-9]+)+(?![^\W_])",
            rf"{_PLAIN}(?:{_HYPHEN}{_PLAIN})+",
            rf"{_LETTERS}(?:[.!?]{_LETTERS})*\.(?=[,;:])|{_LETTERS}(?:[.!?]{_LETTERS})+",
            rf"(?<![\w'’])[A-Za-z]\.(?![A-Za-z])(?!\s*(?:{_SENTENCE_STARTS})(?:\s|$))",
            rf"(?:(?i:\b(?:{_ABBREVIATIONS}))|\b(?:{_STATES}))\.",
            rf"(?i:\b(?:{_BEFORE_NUMBERS})\.(?=\s*\d))|{_PLAIN}\.(?=[,;:])",
            # contractions, and apostrophes that belong to a word
            rf"(?i:can(?=not{_END})|(?:gon|wan)(?=na{_END})|got(?=ta{_END})|(?:lem|gim)(?=me{_END}))",
            rf"{_CLITIC}|{_NOT}|(?i:{_QUOTE}t(?=(?:is|was){_END}))",
            rf"(?i:{_QUOTE}(?:n{_QUOTE}?|em|cause|till?){_END})",
            rf"{_LETTER}+?(?={_NOT})",
            rf"(?i:y{_QUOTE}(?={_LETTER})|ol{_QUOTE}|[dlj]{_QUOTE}(?!\w)|[dl]{_QUOTE}(?={_LETTER}*[{MARKS}])"
            rf"|(?:c{_QUOTE}mon|nor{_QUOTE}easter|cap{_QUOTE}n|li{_QUOTE}l|nat{_QUOTE}l){_END})",
            rf"(?i:[dlno]{_QUOTE}{_LETTER}{{2,}})",
            rf"{_LETTER}*[aeiou]{_QUOTE}(?!(?:ve|re|ll){_END})[aeiou]{_LETTER}*",
            # numbers, plain words, the rest
            rf"[\-+]?\d*(?:[.,:٫٬]\d+)+|{_WORD}|[\-+]\d+",
            r"\.(?:[ ]\.){2,}|\.{3,}|-{2,}|[?!]+|[:;=]-?[()DP](?!\w)|&apos;",
            r"[‘’‚‛“”„‟‹›«»\x91-\x94]{1,2}|\S",
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
    **dict.fromkeys("€¤₠\x80", "$"),
    "¢": "cents",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
    **dict.fromkeys(("&amp;", "&Amp;", "&AMP;"), "&"),
    **dict.fromkeys(("&lt;", "&Lt;", "&LT;"), "<"),
    **dict.fromkeys(("&gt;", "&Gt;", "&GT;"), ">"),
    "&quot;": "''",
    "&apos;": "'",
    "…": "...",
    **dict.fromkeys(("–", "—", "―", "\x96", "\x97", "&mdash;", "&ndash;", "&MD;"), "--"),
}
_QUOTES = str.maketrans(
    dict.fromkeys("‘‛‹\x91", "`")
    | dict.fromkeys("’›\x92", "'")
    | dict.fromkeys("“«\x93", "``")
    | dict.fromkeys('"”»\x94', "''")
)
_NOTHING = "\uffff"
"""In the place of a deleted sign: it ends a word, but is no white space."""
_DROPPED = PUNCTUATION | {*"֊‐‑٫٬", "&nbsp;", _NOTHING}
"""Punctuation, and signs that are deleted where they stand alone."""
_CONTRACTED = re.compile(rf"{_CLITIC}|{_NOT}")


def ptb_tokens(text: str) -> list[str]:
    """Lower-cased Treebank tokens of a text, without punctuation.

    Signs that the official program does not know (emoji, zero-width signs, marks of some scripts)
    end a word and leave no token, as there.
    """
    if not (text.isascii() and text.isprintable()):
        text = _DELETED.sub(_NOTHING, text.replace("\u00ad", ""))
    tokens = (_rewrite(match) for match in _TOKEN.findall(text))
    return [token for token in tokens if token not in _DROPPED]


def _rewrite(token: str) -> str:
    if token in _REWRITTEN:
        return _REWRITTEN[token]
    lower = token.lower()
    if token.startswith(".") and token.strip(". ") == "":
        return "..."
    if token.startswith("--"):
        return "--"
    if token[0] in "(:;=" and len(token) > 1:
        return "".join(_BRACKETS.get(sign, sign) for sign in lower)
    if _CONTRACTED.fullmatch(token):
        return re.sub(_QUOTE, "'", lower)
    if len(token) < 3 and not any(map(str.isalnum, token)):
        return lower.translate(_QUOTES)
    return lower.replace("&amp;", "&")
