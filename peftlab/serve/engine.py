"""The engine: requests join and leave one running batch at every step, each row with its adapter.

A step's batch is one token of every row that decodes and at most `prefill_tokens` prompt tokens of
those that have just come, so a long prompt slows the others down by a bounded amount and never
stops them. Rows of full fine-tuning or of the last k layers take part like all others; their slice
of the tokens runs through weights of their own, which costs a pass over those weights a step.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from peftlab.errors import InputError, PeftlabError
from peftlab.serve.errors import Closed, Failed, UnknownAdapter
from peftlab.serve.feeding import Feeder, failed, shared_out
from peftlab.serve.library import Library
from peftlab.serve.limits import Limits, Stats
from peftlab.serve.loaded import LoadedAdapter, RowLimits
from peftlab.serve.memory import EVERY, Trimmer
from peftlab.serve.prompt_reuse import PromptReuse
from peftlab.serve.request import Finished, Listener, Reply, ServeRequest, Ticket, Token
from peftlab.serve.running import Running, RunningRow, Waiting, nothing
from peftlab.serve.slots import Slots
from peftlab.serve.waiting import FairQueue
from peftlab.structured import grammars_of
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

_log = logging.getLogger(__name__)
_IDLE = 0.05  # seconds between looks at what may have been cancelled while nothing can run


class Engine:
    """Serves the adapters of a library.

    `start` lets it run in a thread of its own; without that, whoever owns it calls `step`.

    Raises:
        InputError: limits that the model cannot hold.
    """

    def __init__(self, model: FrozenLM, library: Library, limits: Limits | None = None) -> None:
        self.model, self.library, self.limits = model, library, limits or Limits()
        self.capacity = max_row_tokens(model.shape.context, self.limits.capacity)
        self._row_limits = RowLimits(self.limits.slots, self.capacity, self.limits.prompt_tokens)
        self._slots = Slots(model, self.limits.slots, self.capacity, self.limits.cache_bytes)
        self._trimmer = Trimmer(self._slots.release)
        share = self.limits.queue_share or max(1, self.limits.queue // 2)
        self._queue: FairQueue[Waiting] = FairQueue(self.limits.queue, share)
        self._rows: list[Running] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = self._news = False  # news: something may be possible that was not before
        self._doubt = False  # what somebody waits for may be gone
        self._other_adapters = True  # than those whose prompts are kept
        self._steps = self._made = 0
        self._finished: Counter[tuple[str, str]] = Counter()
        self._reuse = PromptReuse(self._slots, self.limits.prompt_cache_bytes)
        self._feeder = Feeder(self._slots, self._leave, self._reuse.clear)
        library.changed = self._wake

    # From any thread.

    def submit(
        self, request: ServeRequest, listener: Listener | None = None, *, stream: bool = True
    ) -> Ticket:
        """Queue a request.

        Args:
            listener: told each piece and, last, the reply or an error, in the engine's thread; it
                must return at once. Without one the ticket is iterated over.
            stream: False saves the work of making text at every step.

        Raises:
            InputError: what cannot be answered. UnknownAdapter, QueueFull, Closed.
        """
        request.check()
        self.library.check(request.adapter)
        if request.max_new_tokens > self.limits.max_new_tokens:
            raise InputError(
                f"max_new_tokens is {request.max_new_tokens:,}; at most "
                f"{self.limits.max_new_tokens:,} was expected"
            )
        known = range(self.model.shape.vocab)
        if beyond := [one for one in request.stop_ids if one not in known]:
            raise InputError(
                f"stop_token_ids holds {beyond[0]}; ids below {len(known):,} were expected"
            )
        waiting = Waiting(Ticket(request, listener), stream)
        adapter = self.library.get(request.adapter)
        if adapter is not None:  # refuse at once what does not fit; else once it is loaded
            waiting.encode(self.model, adapter, self._row_limits)
        if request.structure is not None:  # compiled here, so that nobody's step waits for it
            grammars = grammars_of(self.model.tokenizer, self.model.shape.vocab)
            waiting.guide = grammars.guide(request.structure)
        with self._changed:
            if self._closing:
                raise Closed("the engine is stopping and takes no more requests")
            self._queue.put(waiting)
            self._news = self._doubt = True
            self._changed.notify_all()
        return waiting.ticket

    def stats(self) -> Stats:
        """Numbers for people and for monitoring."""
        with self._changed:
            return Stats(
                len(self._queue), self._slots.taken, self.limits.slots, self._steps,
                self._feeder.read, self._made, dict(self._finished), self._slots.bytes,
                self._reuse.done,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it runs in its thread, with the library's, and takes requests."""
        running = self._thread is not None and self._thread.is_alive() and self.library.alive
        return running and not self._closing

    @property
    def failure(self) -> str | None:
        """Why the base itself cannot run, as far as the last step has shown; None: it can."""
        return self._feeder.failure

    def start(self) -> None:
        """Run in threads of its own, the library's loader included, from now on."""
        if self._thread is None:
            self._closing = False
            self.library.start()
            self._thread = threading.Thread(target=self._run, name="peftlab-engine", daemon=True)
            self._thread.start()

    def stop(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Take nothing new, and end.

        Args:
            drain: finish what was taken; else, and for what is left after `timeout` seconds,
                replies end as cancelled.
        """
        with self._changed:
            self._closing = self._news = True
            self._changed.notify_all()
        if drain and self._thread is not None:
            self._thread.join(timeout)
        self._cancel_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self.library.stop()
        else:
            while self.step():
                pass

    # In the engine's thread.

    def step(self) -> bool:
        """One step of the batch; returns whether there is more to do."""
        if not self.library.runs:
            self.library.load_one()
        self._drop_cancelled()
        if self.library.prepare_one():
            self._news = True
        if self._other_adapters:
            self._other_adapters = False
            self._reuse.retain(self.library.fingerprints())
        self._admit()
        if self._rows:
            self._advance()
        return bool(self._rows or len(self._queue))

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closing and not self._rows and not len(self._queue):
                    return
                if not self._rows and not self._news:
                    self._changed.wait(_IDLE if len(self._queue) else EVERY)
                self._news = False
            try:
                self.step()
                self._trimmer.look()
            except Exception as error:  # a defect: nobody may wait for ever, the engine goes on
                _log.exception("the engine failed")
                self._lose_all(failed("the engine failed", error))
                self._feeder.look_at_base()

    def _lose_all(self, error: Failed) -> None:
        with self._changed:
            waiting = self._queue.remove(lambda _: True)
        for one in waiting:
            self._tell(one.ticket, error)
        for row in list(self._rows):
            self._leave(row, error)

    def _wake(self) -> None:
        with self._changed:
            self._news = self._doubt = self._other_adapters = True
            self._changed.notify_all()

    def _cancel_all(self) -> None:
        with self._changed:
            for waiting in self._queue:
                waiting.ticket.cancel()
            for row in self._rows:
                row.ticket.cancel()
            self._news = True
            self._changed.notify_all()

    def _drop_cancelled(self) -> None:
        with self._changed:
            gone = self._queue.remove(lambda waiting: waiting.ticket.cancelled)
        for waiting in gone:
            self._tell(waiting.ticket, nothing(waiting))
        for row in [row for row in self._rows if row.ticket.cancelled]:
            self._leave(row, "cancelled")

    def _admit(self) -> None:
        """Let waiting requests in while there are slots, adapters taking turns."""
        with self._changed:
            names = self._queue.adapters
            doubtful, self._doubt = names if self._doubt else [], False
        self.library.want(names[: 2 * self.limits.slots])
        self._refuse(doubtful)
        while self._slots.free:
            ready: dict[str, LoadedAdapter] = {}
            waiting = self._next(ready)
            if waiting is None:
                return
            self._join(waiting, ready[waiting.adapter])

    def _next(self, ready: dict[str, LoadedAdapter]) -> Waiting | None:
        """The next request; none goes before one that needs more slots than are free.

        Args:
            ready: the versions that were found are noted here, since others may follow at any time.
        """

        def is_ready(name: str) -> bool:
            adapter = self.library.get(name)
            if adapter is None or not adapter.is_ready:
                return False
            ready[name] = adapter
            return True

        with self._changed:
            name = self._queue.next(is_ready)
            if name is None:
                return None
            needed = len(ready[name].starts)
            return (
                None if self._slots.free < needed <= self._slots.count else self._queue.take(name)
            )

    def _refuse(self, names: list[str]) -> None:
        """Answer those whose adapter is gone or could not be loaded."""
        for name in names:
            error = self.library.failure(name) or self._unknown(name)
            if error is not None:
                concerned = partial(_waits_for, name)
                with self._changed:
                    gone = self._queue.remove(concerned)
                for waiting in gone:
                    self._tell(waiting.ticket, error)

    def _unknown(self, name: str) -> PeftlabError | None:
        try:
            self.library.check(name)
        except UnknownAdapter as error:
            return error
        return None

    def _join(self, waiting: Waiting, adapter: LoadedAdapter) -> None:
        try:
            encoded = waiting.encode(self.model, adapter, self._row_limits)
            row = Running(waiting, adapter, encoded, self.model)
            self._slots.enter([one.row for one in row.rows])
        except PeftlabError as error:
            self._tell(waiting.ticket, error)
        except Exception as error:  # a defect: it ends this request alone
            _log.exception("a request of %s could not begin", waiting.adapter)
            self._tell(waiting.ticket, failed("the request could not begin", error))
        else:
            self._rows.append(row)

    def _advance(self) -> None:
        """Feed every row that decodes its last token, and prompts their next part."""
        rows = self._each_row()
        shares = shared_out(self._reuse.unread(rows), self.limits.prefill_tokens)
        feeding = [
            (row, row.next_input(share))
            for row, share in zip(rows, shares, strict=True)
            if row.decodes or share
        ]
        for row, token in self._feeder.step(feeding):
            self._made += 1
            self._accept(row, token)
        self._reuse.keep_prompts(self._each_row())
        self._steps += 1

    def _each_row(self) -> list[RunningRow]:
        return [row for running in self._rows for row in running.rows]

    def _accept(self, row: Running, token: Token) -> None:
        try:
            how: Finished | PeftlabError | None = row.accept(token)
        except PeftlabError as error:  # its structure's limits
            how = error
        except Exception:
            _log.exception("a listener failed")
            row.ticket.cancel()
            how = None
        if how is not None:
            self._leave(row, how)

    def _leave(self, row: Running, how: Finished | PeftlabError) -> None:
        self._rows.remove(row)
        row.has_left = True
        for one in row.rows:
            if not isinstance(how, PeftlabError):
                self._reuse.keep(one)
            self._slots.leave(one.row, clear=isinstance(how, PeftlabError))
        self._news = True
        if isinstance(how, PeftlabError):
            self._tell(row.ticket, how)
            return
        try:
            reply = row.finish(how)
        except Exception:
            _log.exception("a listener failed")
            row.mute()
            reply = row.finish("cancelled")
        self._tell(row.ticket, reply)

    def _tell(self, ticket: Ticket, outcome: Reply | Exception) -> None:
        how = outcome.finished if isinstance(outcome, Reply) else "failed"
        self._finished[ticket.request.adapter, how] += 1
        try:
            ticket.tell(outcome)
        except Exception:
            _log.exception("a listener failed")


def _waits_for(name: str, waiting: Waiting) -> bool:
    return waiting.adapter == name
