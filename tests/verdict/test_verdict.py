"""The verdict's choices against their definitions, and its sentences against hand-made numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftlab.errors import InputError
from peftlab.records.figures import scored
from peftlab.units import amount, duration, loss, size
from peftlab.verdict.choices import Ranked, balances, fronts, most_frugal
from peftlab.verdict.declared import declared_pairs, on_whole_rows
from peftlab.verdict.judgement import Entry, Failure, MixedRecordsError, Verdict, judge
from peftlab.verdict.numbers import counted, listed, percent
from peftlab.verdict.statistics import Runs

CONDITIONS = {"task": "demo", "model": "gpt2", "steps": 200}
COMMON = np.random.default_rng(0).normal(0.0, 0.1, 400)
COMMON -= COMMON.mean()


def runs(name: str, mean: float, seeds: int = 1, noise: float = 0.02) -> Runs:
    """Scores whose mean is exactly this."""
    generator = np.random.default_rng(len(name))
    scores = generator.normal(0, noise, (seeds, len(COMMON)))
    return Runs(name, mean + COMMON + scores - scores.mean())


def entry(
    name: str,
    mean: float,
    trainable: float | None = 1000,
    *,
    seeds: int = 1,
    train: float = 1.0,
    validation: float = 1.1,
    **costs: float | None,
) -> Entry:
    """A finished method."""
    return Entry(
        name,
        runs(name, mean, seeds),
        costs={"trainable_parameters": trainable, **costs},
        losses={"train": train, "validation": validation},
        conditions=CONDITIONS,
    )


def three(seeds: int = 1) -> list[Entry]:
    """full is best, lora near at a hundredth of the parameters, ia3 far below."""
    full = entry("full", 0.5, 2_000_000, seeds=seeds, peak_memory=8e8, training_seconds=90.0)
    lora = entry("lora", 0.49, 20_000, seeds=seeds, peak_memory=4e8, training_seconds=60.0)
    ia3 = entry("ia3", 0.30, 2_304, seeds=seeds, peak_memory=4e8, training_seconds=55.0)
    return [full, lora, ia3]


def said(verdict: Verdict, part: str) -> str:
    """The one sentence that holds these words."""
    (one,) = [sentence for sentence in verdict.sentences if part in sentence]
    return one


# --- choices -----------------------------------------------------------------------------------


def test_quick_sentences() -> None:
    assert judge(three()).quick == (
        "full scores best here: ROUGE-L 0.500, 0.010 ahead of lora.",
        "lora is the best balance: ROUGE-L 0.490, 98 % of the best, with 1 % of full's trainable"
        " parameters, 50 % of its peak memory in training and 67 % of its training time; quality"
        " and frugality together are 0.91 of 1 (next: full, 0.66), without 1 method below 75 % of"
        " the scale of quality.",
        "lora is the most frugal within 5 % of the best: ROUGE-L 0.490 with 20 thousand trainable"
        " parameters.",
    )


def test_a_balance_without_training_is_not_told_in_shares_of_nothing() -> None:
    asked = entry("hard_prompt", 0.49, 0, peak_memory=0.0, training_seconds=0.0, context_tokens=16)
    full = entry("full", 0.5, 2_000_000, peak_memory=8e8, training_seconds=90.0)
    assert judge([full, asked]).quick[1] == (
        "hard_prompt is the best balance: ROUGE-L 0.490, 98 % of the best, with no trainable"
        " parameters, but 16 context tokens a request; quality and frugality together are 0.89 of"
        " 1 (next: full, 0.00)."
    )


def test_one_seed_claims_nothing() -> None:
    verdict = judge(three())
    assert verdict.caution == "One seed proves no difference between methods."
    assert {pair.outcome for pair in verdict.pairs} == {"undecided"}
    assert said(verdict, "One seed").endswith(
        "3 of 3 pairs differ by more than the choice of test examples explains; train at least"
        " three seeds of each to compare methods."
    )
    for sentence in (*verdict.sentences, *verdict.quick):
        assert " better than" not in sentence


def test_several_seeds_claim() -> None:
    verdict = judge(three(seeds=4), margin=0.02)
    assert verdict.caution is None
    assert "full is better than ia3; tied with lora (within 0.020)." in verdict.sentences
    tie = said(verdict, "are tied")
    assert tie.startswith("full and lora are tied: 0.010 apart (95 % interval 0.0")
    assert tie.endswith("within the margin of 0.020.")
    assert said(verdict, "400 test examples, 4 seeds")
    strict = judge(three(seeds=4), margin=0.001)
    assert "full is better than all 2 other methods." in strict.sentences


def test_few_seeds_say_what_they_cannot_exclude() -> None:
    told = "seeds cannot exclude that runs now and then collapse: where one in ten does,"
    assert said(judge(three(seeds=2)), "cannot exclude") == (
        f"2 {told} 81 % of methods show none, and their intervals leave it out; in 1 % all do,"
        " which looks like a worse method."
    )
    assert said(judge(three(seeds=3)), "cannot exclude") == (
        f"3 {told} 73 % of methods show none, and their intervals leave it out."
    )
    for seeds in (1, 7):
        assert not any("cannot exclude" in text for text in judge(three(seeds)).sentences)


def test_whose_intervals_rest_on_few_examples() -> None:
    scores = np.tile(np.arange(400) < 4, (3, 1)) * 0.5
    few = replace(three()[0], runs=Runs("full", scores))
    verdict = judge([few, three(seeds=3)[1]])
    assert (
        "Most test examples score alike for full, and a few decide: its interval may be too narrow."
    ) in verdict.sentences
    several = [replace(few, name=name, runs=Runs(name, scores)) for name in "abcd"]
    assert said(judge(several), "score alike").startswith(
        "Most test examples score alike for a and 3 others, and a few decide: their intervals may"
    )


def test_undecided_pairs_say_what_would_decide_them() -> None:
    generator = np.random.default_rng(4)
    noisy = [
        replace(one, runs=Runs(one.name, mean + COMMON + generator.normal(0, 0.02, (3, 1))))
        for one, mean in zip(three()[:2], (0.50, 0.47), strict=True)
    ]
    verdict = judge(noisy, margin=0.001)
    (pair,) = verdict.pairs
    assert pair.outcome == "undecided"
    assert pair.needed is not None
    assert pair.needed.seeds is not None
    assert f"{pair.needed.seeds} more seed" in said(verdict, "are undecided")


def test_an_interval_without_zero_is_no_proof_among_many_pairs() -> None:
    names = ("a", "bb", "ccc", "dddd")
    verdict = judge([entry(n, 0.5 - 0.001 * i, seeds=3) for i, n in enumerate(names)], margin=0.0)
    open_ = [pair for pair in verdict.pairs if pair.outcome == "undecided"]
    seeming = [pair for pair in open_ if pair.low * pair.high > 0]
    assert 0 < len(seeming) < len(open_)
    for pair in open_:
        told = said(verdict, f"{pair.first} and {pair.second} are undecided")
        assert ("for this pair alone, no proof among 6)" in told) == (pair in seeming)


def test_one_method_with_one_seed_is_named() -> None:
    full, lora, _ = three(seeds=3)
    *_, ia3 = three(seeds=1)
    verdict = judge([full, lora, ia3])
    assert verdict.caution == "ia3 has one seed, which proves no difference between methods."
    assert "of 2 pairs" in said(verdict, "ia3 has one seed")


def test_a_method_without_anything_random_needs_no_seeds() -> None:
    hard = entry("hard_prompt", 0.2, 0, context_tokens=212.0)
    assert hard.runs is not None
    hard = replace(hard, runs=replace(hard.runs, deterministic=True))
    verdict = judge([*three(seeds=3), hard])
    assert verdict.caution is None
    assert all(pair.scope == "methods" for pair in verdict.pairs)
    alone = judge([hard])
    assert "400 test examples, nothing random in it" in alone.sentences[0]
    assert alone.quick[2].endswith("no trainable parameters, but 212 context tokens a request.")


def test_limits() -> None:
    verdict = judge(three(), limits={"trainable_parameters": 50_000, "training_seconds": 58})
    assert verdict.best == "full"
    assert verdict.best_within_limits == "ia3"
    assert verdict.beyond_limits == {
        "full": ("2 million trainable parameters", "1 min 30 s of training"),
        "lora": ("1 min of training",),
    }
    assert said(verdict, "Within your limits") == (
        "Within your limits of 50 thousand trainable parameters and 58 s of training, ia3 is best:"
        " ROUGE-L 0.300 (beyond them: full: 2 million trainable parameters and 1 min 30 s of"
        " training; lora: 1 min of training)."
    )
    assert said(judge(three(), limits={"peak_memory": 1e8}), "No method stays within your limits")
    assert said(judge(three(), limits={"peak_memory": 1e9}), "all methods fit")
    unknown = judge(three(), limits={"latency": 1.0})
    assert unknown.best_within_limits is None
    assert unknown.beyond_limits["full"] == ("serving latency not measured",)


def test_what_trains_nothing_is_within_limits_of_training() -> None:
    hard = entry("hard_prompt", 0.2, 0)
    verdict = judge([*three(), hard], limits={"peak_memory": 1e8, "training_seconds": 1})
    assert verdict.best_within_limits == "hard_prompt"


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 5))),
        min_size=1,
        max_size=7,
    ),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_front_is_what_nothing_dominates(points: list[tuple[int, int | None]], up: bool) -> None:
    entries = [entry(f"m{i}", 0.0, None, latency=cost) for i, (_, cost) in enumerate(points)]
    means = {f"m{i}": float(mean) for i, (mean, _) in enumerate(points)}
    front = fronts(Ranked.of(entries, means, up)).get("latency", ())
    sign = 1 if up else -1
    expected = set()
    for i, (mean, cost) in enumerate(points):
        if cost is None:
            continue
        rivals = [(sign * (m - mean), cost - c) for m, c in points if c is not None]
        if not any(gain >= 0 and saving >= 0 and gain + saving > 0 for gain, saving in rivals):
            expected.add(f"m{i}")
    assert set(front) == expected
    costs = [points[int(name[1:])][1] for name in front]
    assert costs == sorted(costs)  # type: ignore[type-var]


def test_frugal_within_the_share_both_ways_up() -> None:
    entries = three()
    ranked = Ranked.of(entries, {"full": 0.5, "lora": 0.49, "ia3": 0.3}, True)
    assert most_frugal(ranked, 0.0) == "full"
    assert most_frugal(ranked, 0.02) == "lora"
    assert most_frugal(ranked, 0.4) == "ia3"
    losses = Ranked.of(entries, {"full": 1.0, "lora": 1.04, "ia3": 1.5}, False)
    assert [one.name for one in losses.entries] == ["full", "lora", "ia3"]
    assert most_frugal(losses, 0.05) == "lora"


def test_equal_parameters_are_told_apart_by_the_next_cost() -> None:
    entries = [
        entry("a", 0.5, 100, peak_memory=None),
        entry("b", 0.5, 100, peak_memory=3e8),
        entry("c", 0.5, 100, peak_memory=2e8),
    ]
    assert most_frugal(Ranked.of(entries, dict.fromkeys("abc", 0.5), True), 0.05) == "c"


def balance(points: Mapping[str, tuple[float, float]]) -> str:
    entries = [entry(name, 0.0, cost) for name, (_, cost) in points.items()]
    return next(iter(balances(Ranked.of(entries, {n: q for n, (q, _) in points.items()}, True))))


def test_balance() -> None:
    assert balance({"dear": (0.50, 1e8), "middle": (0.48, 1e4), "cheap": (0.2, 1e2)}) == "middle"
    # the cheapest wins where it lacks next to nothing, and never where it is the worst by far
    assert balance({"dear": (0.50, 1e8), "cheap": (0.499, 1e2)}) == "cheap"
    assert balance({"best": (0.5, 1.1e4), "worst": (0.2, 1e4)}) == "best"
    assert balance({"only": (0.5, 1e4)}) == "only"
    assert (
        balance({"free": (0.7, 0), "lora": (0.85, 2e4), "all": (0.98, 2e6), "none": (0.02, 0)})
        == "lora"
    )
    assert balance({"nothing": (0.1, 0), "some": (0.5, 1e4), "all": (0.51, 1e8)}) == "some"


def test_balance_without_costs_is_the_best() -> None:
    entries = [entry("a", 0.4, None), entry("b", 0.5, None)]
    assert balances(Ranked.of(entries, {"a": 0.4, "b": 0.5}, True)) == {}
    verdict = judge(entries)
    assert verdict.balance == "b"
    assert "No cost was measured of all methods, so b stands as the best balance too." in (
        verdict.quick
    )


def test_a_balance_is_weighed_as_the_docs_say() -> None:
    """Quality on its scale, the geometric place between the costs, and 75 % of the scale."""
    points = {"dear": (0.5, 1e6), "near": (0.48, 1e4), "edge": (0.425, 1e2), "far": (0.4, 1e2)}
    entries = [entry(name, mean, cost) for name, (mean, cost) in points.items()]
    means = {name: mean for name, (mean, _) in points.items()} | {"none": 0.2}
    weighed = balances(Ranked.of([*entries, entry("none", 0.2, 1e6)], means, True))
    good = 1 - 0.02 / 0.3
    assert weighed == {
        "edge": pytest.approx(2 * 0.75 / 1.75),
        "near": pytest.approx(2 * good * 0.5 / (good + 0.5)),
        "dear": 0.0,
    }
    assert list(weighed) == ["edge", "near", "dear"]
    verdict = judge([*entries, entry("none", 0.2, 1e6)])
    assert said(verdict, "best balance").endswith(
        "; quality and frugality together are 0.86 of 1 (next: near, 0.65), without 2 methods"
        " below 75 % of the scale of quality."
    )


# --- sentences on costs ------------------------------------------------------------------------


def test_who_overfits() -> None:
    entries = [
        replace(three()[0], losses={"train": 0.5, "validation": 1.1}),
        replace(three()[1], losses={"train": 1.0, "validation": 1.1}),
        replace(entry("hard_prompt", 0.1, 0), losses={"train": 1.0, "validation": 2.0}),
    ]
    assert said(judge(entries), "overfits") == (
        "full overfits: its loss is 0.50 on training text and 1.10 on validation text, 120 % more."
    )
    few = replace(entries[0], loss_errors={"train": 0.1, "validation": 0.4})
    assert said(judge([few, *entries[1:]]), "overfit") == (
        "full may overfit, or chance has it so: its loss is 0.50 on training text and 1.10 on"
        " validation text, 120 % more (standard error 0.41)."
    )
    many = replace(entries[0], loss_errors={"train": 0.1, "validation": 0.2})
    assert said(judge([many, *entries[1:]]), "overfit").startswith("full overfits:")
    assert said(judge(entries[1:]), "overfit") == (
        "No method overfits by more than 20 %: validation loss is furthest from training loss for"
        " lora (1.10 against 1.00)."
    )


def test_context_and_epochs() -> None:
    entries = [
        replace(entry("lora", 0.5, context_tokens=6.0), seconds_per_epoch=75.0),
        replace(entry("ia3", 0.4, context_tokens=6.0), seconds_per_epoch=0.5),
        replace(entry("prompt", 0.4, context_tokens=26.4), seconds_per_epoch=None),
    ]
    verdict = judge(entries)
    assert said(verdict, "context tokens") == (
        "Beside the source, a request takes from 6 (lora and ia3) to 26.4 (prompt) context tokens."
    )
    assert said(verdict, "epoch") == (
        "An epoch of training takes from 500 ms (ia3) to 1 min 15 s (lora)."
    )
    same = judge(entries[:2])
    assert said(same, "context tokens") == (
        "Beside the source, a request takes 6 context tokens, whatever the method."
    )


def test_what_was_forgotten() -> None:
    entries = [
        replace(entry("full", 0.5), general=(3.21, 4.05)),
        replace(entry("lora", 0.4), general=(3.21, 3.3)),
        replace(entry("hard_prompt", 0.1, 0), general=(3.21, 3.21)),
        entry("ia3", 0.2),
    ]
    assert said(judge(entries), "The loss of general text") == (
        "The loss of general text is 3.21 with the bare base and, with an adaptation, from 3.21"
        " (hard_prompt) to 4.05 (full)."
    )
    assert not any("general text" in text for text in judge(three()).sentences)


def test_failures_are_told() -> None:
    full, lora, ia3 = three()
    lora = replace(lora, failures=[Failure(2, "the loss is not a number", step=1200)])
    memory = [Failure(0, "out of memory.")]
    gone = Entry("prefix_tuning", None, failures=memory, conditions=CONDITIONS)
    verdict = judge([full, lora, ia3, gone])
    assert said(verdict, "diverged") == (
        "lora diverged at step 1,200 with seed 2 (the loss is not a number); its figures are of 1"
        " finished seed, which may flatter it."
    )
    assert said(verdict, "prefix_tuning") == (
        "prefix_tuning failed with seed 0: out of memory; it is not compared."
    )
    assert "prefix_tuning" not in {one.name for one in verdict.qualities}


def test_when_nothing_finished() -> None:
    verdict = judge([Entry("lora", None, failures=[Failure(0, "loss is NaN", 7)])])
    assert verdict.best is None
    assert verdict.sentences == (
        "No run finished, so there is nothing to compare.",
        "lora diverged at step 7 with seed 0 (loss is NaN); it is not compared.",
    )
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_pareto_sentences_join_equal_fronts() -> None:
    verdict = judge(three())
    assert said(verdict, "trainable parameters and training time") == (
        "ia3, lora and full are on the Pareto front of ROUGE-L against trainable parameters and"
        " training time."
    )
    assert said(verdict, "peak memory in training.") == (
        "lora and full are on the Pareto front of ROUGE-L against peak memory in training."
    )


def test_lower_is_better() -> None:
    verdict = judge(three(), metric="ter", higher_is_better=False)
    assert verdict.best == "ia3"
    assert verdict.quick[0] == "ia3 scores best here: TER 0.3, 0.2 ahead of lora."


def test_json() -> None:
    verdict = judge(three(seeds=2), limits={"peak_memory": 5e8})
    text = json.dumps(verdict.to_dict(), allow_nan=False)
    assert json.loads(text)["pairs"][0]["first"] == "full"


def test_many_methods_do_not_make_a_flood() -> None:
    entries = [entry(f"m{i}", 0.5 + i / 1e5, seeds=2) for i in range(10)]
    verdict = judge(entries, margin=0.0, resamples=100)
    told = [s for s in verdict.sentences if "are undecided:" in s or "are tied:" in s]
    assert len(told) == 6
    assert said(verdict, "further pairs")


# --- bad input ---------------------------------------------------------------------------------


def test_different_conditions_are_refused() -> None:
    full, lora, ia3 = three()
    other = replace(ia3, conditions={**CONDITIONS, "task": "e2e", "seconds": 60})
    with pytest.raises(MixedRecordsError) as caught:
        judge([full, lora, other])
    assert str(caught.value) == (
        "These records cannot be compared: task is 'demo' (full, lora) and 'e2e' (ia3); seconds is"
        " 'not given' (full, lora) and 60 (ia3). Compare runs of one task, one model and one"
        " budget."
    )


def test_other_bad_input() -> None:
    full, *_ = three()
    with pytest.raises(InputError, match=r"Unknown limit 'peak_memori'.*peak_memory"):
        judge([full], limits={"peak_memori": 1.0})
    with pytest.raises(InputError, match="the limit latency is nan"):
        judge([full], limits={"latency": float("nan")})
    with pytest.raises(InputError, match="within is 5"):
        judge([full], within=5)
    with pytest.raises(InputError, match="'full' is there twice"):
        judge([full, full])
    with pytest.raises(InputError, match="nothing to compare"):
        judge([])
    with pytest.raises(InputError, match="Unknown cost 'bytes'"):
        entry("lora", 0.5, bytes=4.0)
    with pytest.raises(InputError, match="lora: latency is -1"):
        entry("lora", 0.5, latency=-1.0)


# --- numbers in words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (amount(0), "0"),
        (amount(6.48), "6.5"),
        (amount(3840), "3,840"),
        (amount(9999), "9,999"),
        (amount(10_000), "10 thousand"),
        (amount(786_432), "786 thousand"),
        (amount(999_900), "1 million"),
        (amount(124_439_808), "124 million"),
        (amount(8.03e9), "8.03 billion"),
        (size(512), "512 B"),
        (size(15_360), "15 KiB"),
        (size(1_048_575), "1 MiB"),
        (size(2.5e15), "2,274 TiB"),
        (duration(0.00321), "3.21 ms"),
        (duration(0.9999), "1.0 s"),
        (duration(42.4), "42 s"),
        (duration(59.6), "1 min"),
        (duration(200), "3 min 20 s"),
        (duration(3599.7), "1 h"),
        (duration(3900), "1 h 5 min"),
        (percent(0.0213), "2.1 %"),
        (percent(0.0994), "9.9 %"),
        (percent(0.0996), "10 %"),
        (percent(0.97), "97 %"),
        (percent(0.000123), "0.012 %"),
        (percent(1e-7), "under 0.001 %"),
        (percent(0), "0 %"),
        (scored("rougeL").unit.said(0.41234), "0.412"),
        (scored("rougeL").unit.said(-0.0004), "0.000"),
        (scored("rougeL").unit.said(-0.02), "−0.020"),
        (scored("bleu").unit.said(41.25), "41.2"),
        (scored("nist").unit.said(8.8149), "8.81"),
        (scored("cider").unit.said(1.98), "1.98"),
        (scored("bleu").unit.said(1.25), "1.2"),
        (loss(0.5), "0.50"),
        (loss(0.0123), "0.012"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (counted(1, "seed"), "1 seed"),
        (counted(1300, "test example"), "1,300 test examples"),
        (scored("rougeL-stem").title, "ROUGE-L-stem"),
        (scored("bleu-e2e").title, "BLEU-e2e"),
        (scored("exact_match").title, "exact match"),
    ],
)
def test_numbers(got: str, expected: str) -> None:
    assert got == expected


# --- pairs compared on purpose -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "other"),
    [
        ("lora:begin=cue", "lora"),
        ("lora:rank=4,begin=cue@nf4", "lora:rank=4@nf4"),
        ("lora:begin=cue,rank=4", "lora:rank=4"),
        ("prompt_tuning:begin=cue+lora:rank=2,begin=cue", "prompt_tuning+lora:rank=2"),
        ("lora", None),
    ],
)
def test_the_same_method_on_whole_rows(label: str, other: str | None) -> None:
    assert on_whole_rows(label) == other
    assert declared_pairs(["x", label, *([other] if other else [])]) == (
        ((label, other),) if other else ()
    )
    assert declared_pairs([label]) == ()


def test_declared_pairs_are_corrected_for_their_own_number_alone() -> None:
    """Six methods, each also from the cue on, a little worse: 66 pairs decide less than six do."""
    noise = np.random.default_rng(1)
    both = []
    for number in range(6):
        for name, mean in ((f"m{number}", 0.5), (f"m{number}:begin=cue", 0.49)):
            scores = mean + COMMON + noise.normal(0, 0.02, (3, len(COMMON)))
            own = Runs(name, scores + noise.normal(0, 0.0012, (3, 1)))
            time = 10.0 if "cue" in name else 40.0
            both.append(Entry(name, own, costs={"training_seconds": time}, conditions=CONDITIONS))
    pairs = declared_pairs([one.name for one in both])
    together = judge(both, margin=1e-4)
    apart = judge(both, margin=1e-4, declared=pairs)

    def of(verdict: Verdict) -> list[float]:
        known = {(p.first, p.second): p for p in verdict.pairs}
        return [known[first, second].p_different for second, first in pairs]

    assert len(pairs) == 6 and len(apart.pairs) == len(together.pairs)
    assert all(own < 0.2 * among for own, among in zip(of(apart), of(together), strict=True))
    assert sum(pair.declared for pair in apart.pairs) == 6
    text = said(apart, "m3 is better than m3:begin=cue")
    assert text.endswith("m3:begin=cue takes 25 % of m3's training time.")
