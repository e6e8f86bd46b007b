"""The loss: cross-entropy of the target's tokens and of its end, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.batch import Batch
from peftlab.frozen.forward import PLAIN, ForwardOptions
from peftlab.frozen.mixing import mixed
from peftlab.frozen.packing import Row, pack
from peftlab.pasts import continued
from peftlab.processes import ALONE, Processes
from peftlab.token_limits import token_chunks

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded
    from peftlab.trunk import Trunk, TrunkStore

# Evaluation packs rows up to this many tokens: enough to fill a matmul, little enough for memory.
_TOKENS_A_BATCH = 2048
# The head is run on at most this many tokens at a time, which bounds the logits in memory. Every
# piece reads the whole head, so few are fast: at 128 tokens a tenth slower, at 512 hardly faster.
_HEAD_TOKENS = 256
Head = Callable[[torch.Tensor], torch.Tensor]
Measure = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def training_row(encoded: Encoded, owner: int = 0) -> Row:
    """The row whose kept logits predict the target and its end; the end is never an input.

    owner: of one in which edits begin nowhere, the bare base.
    """
    kept = tuple((start - 1, stop - 1) for start, stop in encoded.spans)
    return Row(encoded.ids[:-1], owner, kept, begin=encoded.begin or 0)


def rows_of_experts(edits: Edits, encoded: Sequence[Encoded]) -> list[Row]:
    """Training rows, all of a mixture's first expert, then all of its second, …

    Their owners are `edits.each` and, after these, the bare base, of rows in which edits begin
    nowhere.
    """
    bare = len(edits.each)
    return [
        training_row(row, number if row.begin is not None else bare)
        for number in range(bare)
        for row in (one.rows[number] for one in encoded)
    ]


def labels(encoded: Sequence[Encoded], batch: Batch) -> torch.Tensor:
    """What the batch's kept logits are to predict, [K]."""
    ids = [i for row in batch.order for i in encoded[row].trained]
    return torch.tensor(ids, device=batch.ids.device)


def token_losses(
    model: FrozenLM,
    batch: Batch,
    encoded: Sequence[Encoded],
    smoothing: float = 0.0,
    options: ForwardOptions = PLAIN,
) -> torch.Tensor:
    """The cross-entropy in nats of every target token, [K], in packed order, in float32."""
    wanted = labels(encoded, batch)
    if model.head_runs_apart(batch, options):
        hidden = model.hidden(batch, options)
        measure = partial(_loss_and_slope, smoothing=smoothing)
        losses: torch.Tensor = _ByPieces.apply(hidden, wanted, model.head, measure)
        return losses
    return _cross_entropy(model(batch, options), wanted, smoothing)


def losses_of_rows(
    model: FrozenLM,
    batch: Batch,
    encoded: Sequence[Encoded],
    shares: Sequence[float] = (1.0,),
    options: ForwardOptions = PLAIN,
) -> list[torch.Tensor]:
    """The cross-entropy in nats of every row's target tokens, rows in the order given.

    Args:
        batch: of a mixture, the rows of each expert in turn. shares: what its logits count.
    """
    if len(shares) == 1:
        return list(batch.split_kept(token_losses(model, batch, encoded, options=options)))
    states, head = _experts_below_head(model, batch, len(shares), options)
    wanted = torch.tensor([i for row in encoded for i in row.trained], device=batch.ids.device)
    measure = partial(_loss_and_slope, smoothing=0.0)
    losses: torch.Tensor = _ByPieces.apply(states, wanted, _mixing(head, shares), measure)
    return list(losses.split([row.targets for row in encoded]))


def _cross_entropy(logits: torch.Tensor, wanted: torch.Tensor, smoothing: float) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        logits.float(), wanted, reduction="none", label_smoothing=smoothing
    )


class _ByPieces(torch.autograd.Function):
    """Losses [K] of states [K, …] that a head makes logits of, a piece at a time.

    Every piece's gradient with respect to its states is taken at once, so no logits outlive their
    piece. That is exact because each token's loss depends on its own state alone.

    Args:
        against: what each state's logits are held against, [K, …].
        loss_and_slope: of a piece's logits and what they are held against.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, states: torch.Tensor, against: torch.Tensor, head: Head, loss_and_slope: Measure
    ) -> torch.Tensor:
        losses, gradients = list[torch.Tensor](), list[torch.Tensor]()
        wants = bool(ctx.needs_input_grad[0])
        count = max(1, math.ceil(len(against) / _HEAD_TOKENS))  # alike in size: no small last one
        for own, given in zip(
            states.detach().tensor_split(count), against.tensor_split(count), strict=True
        ):
            with torch.set_grad_enabled(wants):
                logits = head(own.requires_grad_(wants))
            piece, slope = loss_and_slope(logits.detach(), given)
            if wants:
                gradients += torch.autograd.grad(logits, own, slope)
            losses.append(piece)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.unsqueeze(-1).to(gradient.dtype), None, None, None


def _loss_and_slope(
    logits: torch.Tensor, wanted: torch.Tensor, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross-entropy of each of [K, V] logits in float32, and its gradient in the logits' place.

    Makes nothing of the logits' size: `softmax − (1 − ε) onehot − ε / V` overwrites them.
    """
    scores = logits.float()  # the same tensor where they are in float32 already
    chosen = scores.gather(1, wanted[:, None])
    mean = scores.mean(1, keepdim=True) if smoothing else 0.0
    most = scores.amax(1, keepdim=True)
    total = scores.sub_(most).exp_().sum(1, keepdim=True)
    losses = total.log() + most - (1 - smoothing) * chosen - smoothing * mean
    slope = scores.div_(total)
    slope.scatter_add_(1, wanted[:, None], slope.new_full((len(wanted), 1), smoothing - 1))
    if smoothing:
        slope.sub_(smoothing / scores.shape[1])
    return losses.squeeze(1), slope.to(logits.dtype)


def divergences(
    model: FrozenLM,
    student: Batch,
    teacher: Batch,
    options: ForwardOptions = PLAIN,
    shares: Sequence[float] = (1.0,),
) -> torch.Tensor:
    """KL(teacher ‖ student) in nats over the whole vocabulary, [K], in the order rows were given.

    Both batches keep as many logits a row, of the same target tokens. Nothing is learnt through
    the teacher's.

    Args:
        shares: of a teacher that is a mixture, whose batch has the rows of each expert in turn.
    """
    with torch.no_grad():
        fast = ForwardOptions(fast=options.fast)
        taught, its_head = _experts_below_head(model, teacher, len(shares), fast)
        theirs = _mixing(its_head, shares)
    own, head = _below_head(model, student, options)
    measure = partial(_divergence_and_slope, theirs=theirs)
    losses: torch.Tensor = _ByPieces.apply(own, taught, head, measure)
    return losses


def _below_head(
    model: FrozenLM, batch: Batch, options: ForwardOptions
) -> tuple[torch.Tensor, Head]:
    """What the head makes logits of, [K, …], and the head; an edited one has run already."""
    if model.head_runs_apart(batch, options):
        return torch.cat(batch.split_kept(model.hidden(batch, options))), model.head
    return torch.cat(batch.split_kept(model(batch, options))), _as_it_is


def _experts_below_head(
    model: FrozenLM, batch: Batch, experts: int, options: ForwardOptions
) -> tuple[torch.Tensor, Head]:
    """The same for several experts, [K, E, …]."""
    states, head = _below_head(model, batch, options)
    return states.unflatten(0, (experts, -1)).transpose(0, 1), head


def _mixing(head: Head, shares: Sequence[float]) -> Head:
    """The head of a mixture: logits [K, V] of its experts' states [K, E, …]."""

    def run(states: torch.Tensor) -> torch.Tensor:
        each = head(states.flatten(0, 1)).unflatten(0, states.shape[:2])
        return mixed(each, shares) if len(shares) > 1 else each[:, 0]

    return run


def _as_it_is(logits: torch.Tensor) -> torch.Tensor:
    return logits


def _divergence_and_slope(
    logits: torch.Tensor, taught: torch.Tensor, theirs: Head
) -> tuple[torch.Tensor, torch.Tensor]:
    """The divergence of each of [K, V] logits from a teacher's, and its gradient, q − p."""
    with torch.no_grad():
        wanted = theirs(taught).float().log_softmax(1)
    found, expected = logits.float().log_softmax(1), wanted.exp()
    losses = (expected * (wanted - found)).sum(1)
    return losses, found.exp_().sub_(expected).to(logits.dtype)


def held_against(sums: Sequence[torch.Tensor], rows: Sequence[Encoded]) -> torch.Tensor:
    """Each row's loss, [R]: of one with rivals, of its probability among them.

    Args:
        sums: summed losses of the rows' `alternatives`, in their order.
    """
    losses, at = [], 0
    for row in rows:
        own = torch.stack(list(sums[at : at + 1 + len(row.rivals)]))
        at += len(own)
        losses.append(-(-own).log_softmax(0)[0] if row.rivals else own[0])
    return torch.stack(losses)


@torch.no_grad()
def row_losses(
    model: FrozenLM,
    edits: Edits,
    encoded: Sequence[Encoded],
    trunk: Trunk | None = None,
    processes: Processes = ALONE,
    store: TrunkStore | None = None,
) -> tuple[list[float], list[int]]:
    """Every row's summed loss in nats and its number of target tokens.

    Of one with rivals the surprise at it among them, and one.

    Args:
        trunk: kept activations of these rows below the edits' lowest block.
        store: of what comes before the cue, for edits that begin there.
        processes: who the rows are divided among; each gets all the sums.
    """
    sums = torch.zeros(len(encoded), dtype=torch.float64)
    counts = [e.units for e in encoded]

    def share_of(process: int) -> list[list[int]]:
        return list(_chunks(encoded, process, processes.count))

    for chunk, own in processes.shares(share_of, even=model.is_sharded):
        given_rows = [encoded[i] for i in chunk]
        rows = [one for row in given_rows for one in row.alternatives()]
        given = continued(model, rows_of_experts(edits, rows), store)
        owners = [*edits.each, Edits()]
        batch = pack(given, owners, device=model.device, share=trunk is None)
        options = PLAIN if trunk is None else ForwardOptions(resume=trunk.states(batch, chunk))
        losses = losses_of_rows(model, batch, rows, edits.shares, options)
        if own:
            each = [one.double().sum() for one in losses]
            sums[chunk] = held_against(each, given_rows).cpu()
    return processes.sum([sums])[0].tolist(), counts


def mean_loss(
    model: FrozenLM,
    edits: Edits,
    encoded: Sequence[Encoded],
    trunk: Trunk | None = None,
    processes: Processes = ALONE,
) -> float:
    """The loss per target token over all rows, see `row_losses`.

    Raises:
        InputError: there are no rows.
    """
    if not encoded:
        raise InputError("a loss over no rows is not defined: the split is empty")
    return mean_of(*row_losses(model, edits, encoded, trunk, processes)).loss


class Mean(NamedTuple):
    """A loss per target token in nats, and its standard error; None of a single row."""

    loss: float
    error: float | None


def mean_of(sums: Sequence[float], counts: Sequence[int]) -> Mean:
    """The mean over the tokens of rows with summed losses, and its standard error over rows.

    Rows are the units that were drawn, so the error is that of a ratio of two means over rows, by
    its linearisation (Cochran, Sampling Techniques, section 2.11), of a population without end.
    """
    tokens, rows = sum(counts), len(sums)
    loss = sum(sums) / tokens
    if rows < 2:
        return Mean(loss, None)
    residues = (own - loss * count for own, count in zip(sums, counts, strict=True))
    squares = sum(residue * residue for residue in residues)
    return Mean(loss, math.sqrt(squares * rows / (rows - 1)) / tokens)


def _chunks(encoded: Sequence[Encoded], process: int, processes: int) -> Iterator[list[int]]:
    """A process's indices by length, in packs of a few tokens."""
    sizes = [sum(len(one.ids) for one in row.rows) * (1 + len(row.rivals)) for row in encoded]
    own = sorted(range(len(encoded)), key=sizes.__getitem__)[process::processes]
    return token_chunks(own, [sizes[i] for i in own], _TOKENS_A_BATCH)
