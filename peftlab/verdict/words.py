"""The verdict in sentences, each computed from the numbers and with the numbers in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peftlab.records.figures import scored
from peftlab.verdict.choices import LEAST_GOOD, Ranked
from peftlab.verdict.entries import COSTS, Entry
from peftlab.verdict.numbers import counted, listed, percent, several
from peftlab.verdict.statistics import Interval, Pair, Statistics

COLLAPSING = 0.1  # share of runs that fail by chance, in what is said of few seeds
MOST_PAIRS = 6  # sentences on pairs; the others are counted, and stand in the table


@dataclass(frozen=True)
class Findings:
    """All that sentences are made of. `ranked` holds the finished methods, at least one."""

    metric: str
    ranked: Ranked
    statistics: Statistics
    within: float
    limits: Mapping[str, float]
    beyond: dict[str, tuple[str, ...]]
    best_within_limits: str | None
    frugal: str
    balances: Mapping[str, float]
    front: dict[str, tuple[str, ...]]

    @property
    def best(self) -> str:
        """Name of the method with the best mean."""
        return self.ranked.entries[0].name

    @property
    def balance(self) -> str:
        """Name of the best balance; the best where no cost was measured of all."""
        return next(iter(self.balances), self.best)

    @property
    def one_seed(self) -> list[str]:
        """Methods of which no seed variance is known."""
        return [one.name for one in self.statistics.intervals if one.scope == "trained models"]

    def score(self, name: str) -> str:
        """ "ROUGE-L 0.412"."""
        return f"{scored(self.metric).title} {self.number(self.ranked.quality(name))}"

    def number(self, value: float) -> str:
        """A score or a difference of scores."""
        return scored(self.metric).unit.said(value)

    def share(self, name: str) -> str:
        """ "97 % of the best", or how far from it where shares mean nothing."""
        best, own = self.ranked.qualities[0], self.ranked.quality(name)
        if self.ranked.higher_is_better and best > 0 and own >= 0:
            return f"{percent(own / best)} of the best"
        return f"{self.number(abs(own - best))} from the best"


def quick_sentences(findings: Findings) -> tuple[str, str, str]:
    """Best, best balance, most frugal: what was seen, without a claim that it would be so again."""
    f = findings
    best = f"{f.best} scores best here: {f.score(f.best)}"
    if len(f.ranked.entries) > 1:
        second, gap = f.ranked.entries[1].name, f.ranked.loss_of(1)
        best += f", {f.number(gap)} ahead of {second}" if gap else f", level with {second}"
    return f"{best}.", _balance(f), _frugal(f)


def caution(findings: Findings) -> str | None:
    """What must stand beside any table whose methods have one seed; None when all have more."""
    single = findings.one_seed
    if not single or len(findings.ranked.entries) < 2:
        return None
    runs = [entry.runs for entry in findings.ranked.entries]
    if len(single) == sum(not one.deterministic for one in runs if one):
        return "One seed proves no difference between methods."
    verb = "has" if len(single) == 1 else "have"
    return f"{listed(single)} {verb} one seed, which proves no difference between methods."


def quality_sentences(findings: Findings) -> tuple[str, ...]:
    """Quality and choices; the costs' own sentences are in `verdict_words_costs`."""
    return (
        _best(findings),
        *_uneven(findings),
        *_standing(findings),
        *_unseen(findings),
        *_seeds(findings),
        *_limits(findings),
        _frugal(findings),
        _balance(findings),
        *_fronts(findings),
        *_untested(findings),
        *_pairs(findings),
        *_declared(findings),
    )


def _untested(f: Findings) -> list[str]:
    pairs = [pair for pair in f.statistics.pairs if not pair.declared]
    names = {name for pair in pairs for name in (pair.first, pair.second)}
    if not names or len(names) == len(f.ranked.entries):
        return []
    return [f"Pairs are tested among the {len(names)} best of {len(f.ranked.entries):,} methods."]


def _best(f: Findings) -> str:
    one = next(i for i in f.statistics.intervals if i.name == f.best)
    return (
        f"{f.best} scores best: {f.score(f.best)} ({percent(one.confidence)} interval"
        f" {f.number(one.low)} to {f.number(one.high)}; {_sample(one)})."
    )


def _sample(one: Interval) -> str:
    known_from_one = one.seeds == 1 and one.scope == "methods"
    seeds = "nothing random in it" if known_from_one else counted(one.seeds, "seed")
    return f"{counted(one.examples, 'test example')}, {seeds}"


def _uneven(f: Findings) -> list[str]:
    """Whose intervals rest on a few test examples."""
    names = [one.name for one in f.statistics.intervals if one.uneven]
    if not names:
        return []
    intervals = "its interval" if len(names) == 1 else "their intervals"
    return [
        f"Most test examples score alike for {several(names)}, and a few decide: {intervals} may be"
        " too narrow."
    ]


def _unseen(f: Findings) -> list[str]:
    """What so few seeds cannot show: a run in ten that collapses."""
    seeds = [i.seeds for i in f.statistics.intervals if i.seed_deviation is not None]
    fewest = min(seeds, default=0)
    unseen = (1 - COLLAPSING) ** fewest
    if caution(f) or not seeds or unseen < 0.5:
        return []
    text = (
        f"{fewest} seeds cannot exclude that runs now and then collapse: where one in ten does,"
        f" {percent(unseen)} of methods show none, and their intervals leave it out"
    )
    all_do = COLLAPSING**fewest
    if all_do >= 0.01:
        text += f"; in {percent(all_do)} all do, which looks like a worse method"
    return [f"{text}."]


def _standing(f: Findings) -> list[str]:
    """How the best stands against each other method, as far as seeds allow a claim."""
    groups: dict[str, list[str]] = {"better": [], "tied": [], "undecided": []}
    for pair in f.statistics.pairs:
        if f.best in (pair.first, pair.second) and pair.scope == "methods":
            groups[pair.outcome].append(other_of(pair, f.best))
    if len(groups["better"]) == len(f.ranked.entries) - 1 > 1:
        return [f"{f.best} is better than all {len(groups['better'])} other methods."]
    parts = []
    if groups["better"]:
        parts.append(f"better than {listed(groups['better'])}")
    if groups["tied"]:
        margin = f.number(f.statistics.margin)
        parts.append(f"tied with {listed(groups['tied'])} (within {margin})")
    if groups["undecided"]:
        parts.append(f"not decided against {listed(groups['undecided'])}")
    return [f"{f.best} is {'; '.join(parts)}."] if parts else []


def _seeds(f: Findings) -> list[str]:
    """One seed proves no difference; what can be said of the models at hand."""
    warning = caution(f)
    if warning is None:
        return []
    pairs = [pair for pair in f.statistics.pairs if pair.scope == "trained models"]
    differ = sum(pair.among_models == "better" for pair in pairs)
    verb = "differs" if differ == 1 else "differ"
    return [
        f"{warning} Among the models trained here, {differ} of {counted(len(pairs), 'pair')} {verb}"
        " by more than the choice of test examples explains; train at least three seeds of each"
        " to compare methods."
    ]


def _limits(f: Findings) -> list[str]:
    if not f.limits:
        return []
    allowed = listed([COSTS[name].text(value) for name, value in f.limits.items()])
    left_out = "; ".join(f"{name}: {listed(reasons)}" for name, reasons in f.beyond.items())
    if f.best_within_limits is None:
        return [f"No method stays within your limits of {allowed} ({left_out})."]
    sentence = f"Within your limits of {allowed}, {f.best_within_limits} is best:"
    sentence += f" {f.score(f.best_within_limits)}"
    return [
        f"{sentence} (beyond them: {left_out})."
        if left_out
        else f"{sentence}, and all methods fit."
    ]


def _frugal(f: Findings) -> str:
    price = _price(f.ranked.entry(f.frugal))
    text = f"{f.frugal} is the most frugal within {percent(f.within)} of the best: "
    return f"{text}{f.score(f.frugal)}{f' with {price}' if price else ''}."


def _price(entry: Entry) -> str:
    """ "768 trainable parameters", or what a method costs that trains nothing."""
    trainable = entry.cost("trainable_parameters")
    context = entry.cost("context_tokens")
    if trainable is None:
        return ""
    if trainable == 0:
        text = "no trainable parameters"
        return f"{text}, but {COSTS['context_tokens'].text(context)}" if context else text
    return COSTS["trainable_parameters"].text(trainable)


def _balance(f: Findings) -> str:
    if not f.balances:
        return f"No cost was measured of all methods, so {f.best} stands as the best balance too."
    if f.balance == f.best:
        return f"{f.balance} is also the best balance of quality and cost{_weighed(f)}."
    own, best = f.ranked.entry(f.balance), f.ranked.entry(f.best)
    text = f"{f.balance} is the best balance: {f.score(f.balance)}, {f.share(f.balance)}"
    if own.cost("trainable_parameters") == 0:  # "0 % of its training time" would say little
        return f"{text}, with {_price(own)}{_weighed(f)}."
    shares: list[str] = []
    for name in ("trainable_parameters", "peak_memory", "training_seconds"):
        cost, reference = own.cost(name), best.cost(name)
        if cost is not None and reference:
            owner = "its" if shares else f"{f.best}'s"
            shares.append(f"{percent(cost / reference)} of {owner} {COSTS[name].called}")
    return f"{text}{f', with {listed(shares)}' if shares else ''}{_weighed(f)}."


def _weighed(f: Findings) -> str:
    """Why it is the best balance: its number, the next one's, and who is not asked."""
    total = len(f.ranked.entries)
    if total == 1:
        return ""
    (_, first), *others = f.balances.items()
    text = f"; quality and frugality together are {first:.2f} of 1"
    if others:
        text += f" (next: {others[0][0]}, {others[0][1]:.2f})"
    if len(f.balances) < total:
        left_out = counted(total - len(f.balances), "method")
        text += f", without {left_out} below {percent(LEAST_GOOD)} of the scale of quality"
    return text


def _fronts(f: Findings) -> list[str]:
    """One sentence for all costs that have the same front."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for cost, names in f.front.items():
        groups.setdefault(tuple(names), []).append(COSTS[cost].called)
    return [
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} on the Pareto front of"
        f" {scored(f.metric).title} against {listed(costs)}."
        for names, costs in groups.items()
    ]


def _pairs(f: Findings) -> list[str]:
    """Ties and open questions, those of the methods that stand out first."""
    rank = {name: i for i, name in enumerate(dict.fromkeys((f.best, f.balance, f.frugal)))}
    others = [p for p in f.statistics.pairs if not p.declared]
    told = [p for p in others if p.scope == "methods" and p.outcome != "better"]
    told.sort(key=lambda p: sum(rank.get(name, len(rank)) for name in (p.first, p.second)))
    sentences = [_pair(f, pair) for pair in told[:MOST_PAIRS]]
    rest = told[MOST_PAIRS:]
    if rest:
        tied = sum(pair.outcome == "tied" for pair in rest)
        sentences.append(
            f"Of {counted(len(rest), 'further pair')}, {tied} {'is' if tied == 1 else 'are'} tied"
            f" and {len(rest) - tied} undecided."
        )
    return sentences


def _declared(f: Findings) -> list[str]:
    """Pairs that are compared on purpose, each with its outcome and what the first one saves."""
    sentences = []
    for pair in f.statistics.pairs:
        if pair.declared and pair.scope == "methods":
            text = _pair(f, pair) if pair.winner is None else _better(f, pair)
            sentences.append(text + _time_of(f, pair))
    return sentences


def _better(f: Findings, pair: Pair) -> str:
    worse = other_of(pair, pair.winner)
    return f"{pair.winner} is better than {worse}: {_apart(f, pair)}."


def _time_of(f: Findings, pair: Pair) -> str:
    """How the training times of a declared pair compare, where both were measured alone."""
    cheap, dear = sorted(
        (f.ranked.entry(name) for name in (pair.first, pair.second)),
        key=lambda entry: entry.cost("training_seconds") or 0.0,
    )
    least, most = (one.cost("training_seconds") for one in (cheap, dear))
    if not least or not most:
        return ""
    return f" {cheap.name} takes {percent(least / most)} of {dear.name}'s training time."


def _pair(f: Findings, pair: Pair) -> str:
    both = f"{pair.first} and {pair.second}"
    apart = _apart(f, pair)
    if pair.outcome == "tied":
        return f"{both} are tied: {apart}, within the margin of {f.number(f.statistics.margin)}."
    return f"{both} are undecided: {apart}; {_needed(pair)}."


def _apart(f: Findings, pair: Pair) -> str:
    low, high = interval_of(pair)
    kind = pair.scope, pair.declared
    family = sum((other.scope, other.declared) == kind for other in f.statistics.pairs)
    seeming = pair.outcome == "undecided" and low > 0 and family > 1
    alone = f" for this pair alone, no proof among {family}" if seeming else ""
    return (
        f"{f.number(abs(pair.difference))} apart ({percent(f.statistics.confidence)} interval"
        f" {f.number(low)} to {f.number(high)}{alone})"
    )


def _needed(pair: Pair) -> str:
    if pair.needed is None:
        return "what would decide it was not estimated"
    ways = []
    if pair.needed.seeds is not None:
        ways.append(f"{counted(pair.needed.seeds, 'more seed')} of each")
    if pair.needed.examples is not None:
        ways.append(counted(pair.needed.examples, "more test example"))
    if not ways:
        return "neither 50 seeds nor 100,000 test examples alone would decide it"
    return f"about {' or '.join(ways)} would decide it"


def interval_of(pair: Pair) -> tuple[float, float]:
    """Of how far apart they are, whichever comes first."""
    return (pair.low, pair.high) if pair.difference >= 0 else (-pair.high, -pair.low)


def other_of(pair: Pair, name: str | None) -> str:
    """The one of a pair that is not called so."""
    return pair.second if pair.first == name else pair.first
