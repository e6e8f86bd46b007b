"""A table of methods without peftlab: PEFT, Trainer, generate, rouge-score."""

from __future__ import annotations

import argparse
from statistics import fmean
from typing import Any

import torch
from rouge_score.rouge_scorer import RougeScorer

from bench.peers import peer_model, trainer_run
from bench.workloads import METHODS, make_task, tokenizer

_RATE = 1e-3


def main() -> None:
    """Train, evaluate and generate, method by method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    arguments = parser.parse_args()
    settings = vars(arguments) | {
        "batch_size": 8,
        "peer_side": "peft-dropout0",
        "precision": "fp32",
    }
    for method in ("zero-shot", *METHODS):
        settings["method"] = method
        if method == "zero-shot":
            model = peer_model(arguments.model, "full")
        else:
            run = trainer_run(settings)(_RATE, arguments.steps)
            run()
            model = run.trainer.model  # type: ignore[attr-defined]
        score = rouge(model.eval(), tokenizer(arguments.model), arguments.workload, arguments.rows)
        print(method, f"rougeL {score:.4f}")


def rouge(model: Any, vocabulary: Any, workload: str, rows: int) -> float:
    """ROUGE-L of greedy replies on the test rows, batches of 16 padded on the left."""
    vocabulary.pad_token, vocabulary.padding_side = vocabulary.eos_token, "left"
    task, scorer = make_task(workload, rows), RougeScorer(["rouge1", "rouge2", "rougeL"])
    scores: list[float] = []
    for start in range(0, len(task.test), 16):
        examples = task.test[start : start + 16]
        prompts = [list(task.template.encode(vocabulary, e, None, 900).ids) for e in examples]
        inputs = vocabulary.pad({"input_ids": prompts}, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(
                **inputs, max_new_tokens=task.max_new_tokens, do_sample=False,
                pad_token_id=vocabulary.pad_token_id,
            )  # fmt: skip
        texts = vocabulary.batch_decode(out[:, inputs["input_ids"].shape[1] :], True)
        scores += [
            max(scorer.score(target, text)["rougeL"].fmeasure for target in example.targets)
            for example, text in zip(examples, texts, strict=True)
        ]
    return fmean(scores)


if __name__ == "__main__":
    main()
