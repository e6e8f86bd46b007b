"""The table of our own metrics. Importing it registers them; it imports no scorer."""

from __future__ import annotations

from dataclasses import replace

from peftlab.metrics.registry import MetricSpec, register, registered

_ROUGE_UNITS = {
    "rouge1": "unigrams",
    "rouge2": "bigrams",
    "rougeL": "longest common subsequence",
    "rougeLsum": "longest common subsequence, sentence by sentence (split at newlines)",
}


def _rouge() -> None:
    for variant, units in _ROUGE_UNITS.items():
        for suffix, text, settings in (
            ("", "Google rouge-score, unstemmed, best reference", ()),
            ("-stem", "Google rouge-score, Porter-stemmed, best reference", (("stem", True),)),
        ):
            register(
                MetricSpec(
                    name=variant + suffix,
                    description=f"F1 of {units}; {text}",
                    factory="peftlab.metrics.rouge:Rouge",
                    settings=(("variant", variant), *settings),
                    title=_rouge_title(variant) + suffix,
                )
            )
    for variant in ("rouge1", "rouge2", "rougeL"):
        register(
            MetricSpec(
                name=f"{variant}-dialogsum",
                description=f"F1 of {_ROUGE_UNITS[variant]}; as DialogSum's baseline prints it:"
                " stemmed, first reference only, median of bootstrap means",
                factory="peftlab.metrics.rouge:DialogSumRouge",
                settings=(("variant", variant),),
                title=f"{_rouge_title(variant)}-dialogsum",
            )
        )


def _rouge_title(variant: str) -> str:
    return "ROUGE-" + variant.removeprefix("rouge")


def _sacrebleu() -> None:
    multi_bleu = (("tokenize", "none"), ("pad_references", True), ("smoothing", "none"))
    for name, text, settings in (
        ("bleu", "sacrebleu's default (cased, 13a)", ()),
        ("bleu-e2e", "E2E challenge (mteval-v13a: lower-cased, 13a)", (("mteval", True),)),
        ("bleu-webnlg", "WebNLG 2017 (multi-bleu.perl on tokenized text)", multi_bleu),
        ("bleu-dart", "DART (multi-bleu.perl on tokenized text)", multi_bleu),
    ):
        register(
            MetricSpec(
                name=name,
                description=f"corpus BLEU, {text}",
                factory="peftlab.metrics.sacre:Bleu",
                scale="0–100",
                settings=settings,
                title=name.replace("bleu", "BLEU"),
                digits=1,
            )
        )
    for name, text, order in (("chrf", "chrF2", 0), ("chrf++", "chrF++", 2)):
        register(
            MetricSpec(
                name=name,
                description=f"{text}: F2 of character n-grams"
                + (" and word n-grams" * bool(order)),
                factory="peftlab.metrics.sacre:ChrF",
                scale="0–100",
                settings=(("word_order", order),),
                title=name.replace("chrf", "chrF"),
                digits=1,
            )
        )
    register(
        MetricSpec(
            name="ter",
            description="translation edit rate (tercom by way of sacrebleu)",
            factory="peftlab.metrics.ter:Ter",
            scale="0–100, may exceed it",
            higher_is_better=False,
            title="TER",
            digits=1,
        )
    )


def _generation() -> None:
    for name, text, settings in (
        ("nist", "NIST, reference length as in mteval-v13a.pl (E2E's official number)", ()),
        (
            "nist-e2e-p",
            "NIST, reference length as in e2e-metrics -p (what LoRA's README uses)",
            (("average_by_example", True),),
        ),
    ):
        register(
            MetricSpec(
                name=name,
                description=text,
                factory="peftlab.metrics.nist:Nist",
                scale="bits, from 0",
                settings=settings,
                title=name.replace("nist", "NIST"),
                digits=2,
            )
        )
    # the code is plugins/peftlab-meteor's, under another licence; what is said of it stays here
    for name, text in (
        ("meteor", "METEOR 1.5 as its jar scores text with -norm (WebNLG, DART)"),
        ("meteor-coco", "METEOR 1.5 on the COCO evaluation's tokens (E2E's official number)"),
    ):
        title = name.replace("meteor", "METEOR")
        register(MetricSpec(name=name, description=text, extra="meteor", title=title))
    register(
        MetricSpec(
            name="cider",
            description="CIDEr-D of the COCO caption evaluation",
            factory="peftlab.metrics.coco:Cider",
            scale="0–10",
            title="CIDEr",
            digits=2,
            of_one_example="0",
        )
    )
    register(
        MetricSpec(
            name="rougeL-coco",
            description="ROUGE-L of the COCO caption evaluation (β = 1.2), which E2E reports",
            factory="peftlab.metrics.coco:CocoRougeL",
            title="ROUGE-L-coco",
        )
    )


def _prepared() -> None:
    """The metrics of WebNLG and DART for text as models write it."""
    for way, title in (("webnlg", "WebNLG 2017"), ("dart", "DART")):
        for short, metric in (("bleu", f"bleu-{way}"), ("meteor", "meteor"), ("ter", "ter")):
            scored = registered(metric)
            register(
                replace(
                    scored,
                    name=f"{short}-{way}-raw",
                    description=f"`{metric}` of raw text, prepared as {title}'s script does",
                    factory="peftlab.metrics.prepared:Prepared",
                    settings=(("metric", metric), ("way", way)),
                    extra=scored.extra or ("webnlg" if way == "webnlg" else None),
                    title=registered(short).title + f"-{way}-raw",
                )
            )


def _labels() -> None:
    exact = "peftlab.metrics.labels:ExactMatch"
    for name, text, settings in (
        ("exact_match", "share of predictions equal to a reference", ()),
        (
            "exact_match-folded",
            "share of predictions equal to a reference up to case and white space",
            (("fold", True),),
        ),
        ("accuracy", "share of predicted labels that are right", ()),
    ):
        register(MetricSpec(name=name, description=text, factory=exact, settings=settings))
    for name, text in (
        ("acc", "by the sum of log-likelihoods"),
        ("acc_norm", "by log-likelihood a character"),
        ("acc_bytes", "by log-likelihood a byte"),
        ("acc_token", "by log-likelihood a token"),
        ("acc_mutual_info", "by what log-likelihood gains over the option alone"),
    ):
        told = f"share of examples whose option is right that is chosen {text}"
        of_choices = "peftlab.metrics.choices:ChosenRight"
        register(MetricSpec(name=name, description=told, factory=of_choices, of_choices=True))
    register(
        MetricSpec(
            name="calibration_error",
            description="distance of a choice's probability from its accuracy, in ten bins",
            factory="peftlab.metrics.choices:CalibrationError",
            higher_is_better=False,
            of_choices=True,
        )
    )
    for name, text, factory in (
        ("json_fields", "share of JSON's fields that are in both, with equal values", "JsonFields"),
        ("json_valid", "share of predictions that are JSON", "JsonValid"),
    ):
        made = f"peftlab.metrics.json_fields:{factory}"
        title = "JSON " + name.removeprefix("json_")
        register(MetricSpec(name=name, description=text, factory=made, title=title))
    register(
        MetricSpec(
            name="macro_f1",
            description="mean over labels of the F1 of each label",
            factory="peftlab.metrics.labels:MacroF1",
            title="macro F1",
        )
    )


def _neural() -> None:
    for title, text, scale, factory, constant in (
        ("BERTScore", "F1 (roberta-large, layer 17)", "−1–1", "bertscore:BertScore", None),
        ("MoverScore", "(BERT on MNLI, unigrams)", "up to 1", "moverscore:MoverScore", "1"),
        ("BLEURT", "(BLEURT-20)", "about 0–1", "bleurt:Bleurt", None),
    ):
        register(
            MetricSpec(
                name=title.lower(),
                description=f"{title} {text}; needs weights; not verified against published values",
                factory=f"peftlab.metrics.neural.{factory}",
                scale=scale,
                extra="model-metrics",
                title=title,
                loads_checkpoint=True,
                of_one_example=constant,
            )
        )


_rouge()
_sacrebleu()
_generation()
_prepared()
_labels()
_neural()
