"""BERTScore, MoverScore and BLEURT on tiny random models, against their papers' formulas."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftlab.metrics import (
    MetricOptionError,
    MetricUnavailableError,
    MetricWarning,
    build_metric,
    score,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "bark", "##ed", "we", "saw", "it", ".", ","]
PREDICTIONS = ["the cat sat on a mat .", "we saw a dog", ""]
REFERENCES = [["a cat sat on the mat", "the dog barked"], ["a dog barked ."], ["it barked"]]


def save_tokenizer(folder: Path) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    numbers = {word: number for number, word in enumerate(vocabulary)}
    transformers.BertTokenizer(vocab=numbers).save_pretrained(folder)


def tiny_config() -> Any:
    return transformers.BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=24,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        num_labels=1,
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    transformers.BertModel(tiny_config()).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("regression")
    torch.manual_seed(1)
    transformers.BertForSequenceClassification(tiny_config()).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@cache
def opened(folder: Path, kind: str) -> tuple[Any, Any]:
    """A checkpoint's tokenizer and model, read once."""
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    return transformers.AutoTokenizer.from_pretrained(folder), model


@cache
def states(folder: Path, text: str) -> tuple[list[str], Any]:
    """Tokens of one text alone, and all layers' states, [layers + 1, T, width]."""
    tokenizer, model = opened(folder, "AutoModel")
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        layers = model(**inputs, output_hidden_states=True).hidden_states
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    return tokens, torch.cat(layers).numpy()


def direct_bertscore(folder: Path, text: str, target: str, layer: int) -> float:
    (_, x), (_, y) = states(folder, text), states(folder, target)
    x, y = x[layer], y[layer]
    cosine = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in y] for a in x])
    if min(cosine.shape) == 2:
        return 0.0
    precision, recall = cosine.max(1)[1:-1].mean(), cosine.max(0)[1:-1].mean()
    return float(2 * precision * recall / (precision + recall))


def test_bertscore_is_its_definition(bert: Path) -> None:
    name = f"bertscore:model={bert}:layer=3"
    ours = score(name, PREDICTIONS, REFERENCES).per_example[name]
    for value, text, targets in zip(ours, PREDICTIONS, REFERENCES, strict=True):
        wanted = max(direct_bertscore(bert, text, target, 3) for target in targets)
        assert value == pytest.approx(wanted, abs=1e-5)


def test_bertscore_with_idf_ignores_words_that_all_references_have(bert: Path) -> None:
    name = f"bertscore:model={bert}:layer=2:idf=true"
    scores = score(name, ["the cat", "the cat"], [["the cat"], ["the dog"]]).per_example[name]
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert scores[1] < 1


def test_bertscore_needs_a_layer(bert: Path) -> None:
    with pytest.raises(MetricOptionError, match="no best layer"):
        build_metric(f"bertscore:model={bert}")
    with pytest.raises(MetricOptionError, match="layers 0 to 6"):
        build_metric(f"bertscore:model={bert}:layer=7")


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    for name in (f"bertscore:model={tmp_path}:layer=1", f"bleurt:model={tmp_path}"):
        with pytest.raises(MetricUnavailableError, match="cannot load the checkpoint"):
            build_metric(name)


def direct_units(folder: Path, text: str) -> Any:
    """Power means over the last five layers of the words of one text, unit length."""
    tokens, vectors = states(folder, text)
    unit = vectors[-5:] / np.linalg.norm(vectors[-5:], axis=-1, keepdims=True)
    joined = np.concatenate([unit.min(0), unit.mean(0), unit.max(0)], axis=-1)[1:-1]
    kept = [i for i, token in enumerate(tokens[1:-1]) if "##" not in token and token not in ".,"]
    return joined[kept] / np.linalg.norm(joined[kept], axis=-1, keepdims=True)


def test_moverscore_is_the_best_assignment(bert: Path) -> None:
    """Two examples without common words give all words the same idf, and [CLS], [SEP] none: with as
    many words on both sides the cheapest transport is the best assignment."""
    from scipy.optimize import linear_sum_assignment

    predictions = ["the cat sat .", "we saw"]
    references = [["cat on mat"], ["it barked"]]
    name = f"moverscore:model={bert}"
    ours = score(name, predictions, references).per_example[name]
    for value, text, (target,) in zip(ours, predictions, references, strict=True):
        x, y = direct_units(bert, text), direct_units(bert, target)
        cost = ((x[:, None] - y[None]) ** 2).sum(-1)
        rows, columns = linear_sum_assignment(cost)
        assert value == pytest.approx(1 - cost[rows, columns].mean(), abs=1e-5)


def test_moverscore_of_the_same_text_is_one(bert: Path) -> None:
    name = f"moverscore:model={bert}:ngram=2"
    texts = ["the cat sat on a mat", "we saw it"]
    assert score(name, texts, [[text] for text in texts]).corpus[name] == pytest.approx(1, abs=1e-6)


def test_moverscore_of_one_example_says_that_it_is_always_one(bert: Path) -> None:
    name = f"moverscore:model={bert}"
    with pytest.warns(MetricWarning, match="of one example is always 1"):
        assert score(name, ["the cat sat"], [["we saw it bark"]]).corpus[name] == 1


def test_moverscore_moves_mass() -> None:
    """.7 stays, .3 moves over a squared distance of 4."""
    from peftlab.metrics.neural.moverscore import transport

    points = np.array([[0.0], [2.0]])
    cost = transport(points, np.array([0.7, 0.3]), points[:1], np.array([5.0]))
    assert cost == pytest.approx(0.3 * 4)


def direct_bleurt(folder: Path, text: str, target: str) -> float:
    tokenizer, model = opened(folder, "AutoModelForSequenceClassification")
    with torch.no_grad():
        return float(model(**tokenizer([target], [text], return_tensors="pt")).logits)


def test_bleurt_reads_reference_and_prediction(regression: Path) -> None:
    for option, choose in (("", max), (":first_reference=true", next)):
        name = f"bleurt:model={regression}{option}"
        ours = score(name, PREDICTIONS, REFERENCES).per_example[name]
        for value, text, targets in zip(ours, PREDICTIONS, REFERENCES, strict=True):
            wanted = choose(direct_bleurt(regression, text, target) for target in targets)
            assert value == pytest.approx(wanted, abs=1e-5)


def save_as_bleurt(model: Any, folder: Path, **settings: Any) -> None:
    """Write a checkpoint in the layout of the hub's converted BLEURT models."""
    from safetensors.torch import save_file

    renamed = {}
    for name, value in model.state_dict().items():
        name = name.replace("bert.", "bleurt.", 1).replace("rembleurt.", "bleurt.", 1)
        name = name.replace("embedding_hidden_mapping_in", "embedding_projection")
        renamed[name] = value.clone()
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"model_type": "bleurt"} | settings
    config.pop("input_embedding_size", None)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_bleurt_of_the_type_that_transformers_does_not_know(
    regression: Path, tmp_path: Path
) -> None:
    model = transformers.BertForSequenceClassification.from_pretrained(regression)
    save_as_bleurt(model, tmp_path, embedding_size=None)
    save_tokenizer(tmp_path)
    ours = score(f"bleurt:model={tmp_path}", PREDICTIONS, REFERENCES)
    plain = score(f"bleurt:model={regression}", PREDICTIONS, REFERENCES)
    assert list(ours.corpus.values()) == pytest.approx(list(plain.corpus.values()))


def test_bleurt_with_a_narrow_embedding(tmp_path: Path) -> None:
    """BLEURT-20's layout: RemBERT's body, SentencePiece tokens."""
    config = transformers.RemBertConfig(
        vocab_size=len(WORDS) + 5,
        input_embedding_size=12,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        num_labels=1,
    )
    torch.manual_seed(2)
    model = transformers.RemBertForSequenceClassification(config).eval()
    save_as_bleurt(model, tmp_path, embedding_size=12)
    pieces = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"▁{word}" for word in WORDS), "[MASK]"]
    tokenizer = transformers.DebertaV2Tokenizer(vocab=[(piece, -1.0) for piece in pieces])
    tokenizer.save_pretrained(tmp_path)
    name = f"bleurt:model={tmp_path}"
    ours = score(name, ["the cat sat"], [["a cat sat"]]).corpus[name]
    inputs = tokenizer(["a cat sat"], ["the cat sat"], return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 9)
    with torch.no_grad():
        assert ours == pytest.approx(float(model(**inputs).logits), abs=1e-5)


def test_bleurt_that_lacks_weights(regression: Path, tmp_path: Path) -> None:
    model = transformers.BertForSequenceClassification.from_pretrained(regression)
    model.classifier = torch.nn.Identity()
    save_as_bleurt(model, tmp_path, embedding_size=None)
    save_tokenizer(tmp_path)
    with pytest.raises(MetricUnavailableError, match="lacks"):
        build_metric(f"bleurt:model={tmp_path}")
