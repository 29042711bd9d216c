"""Requests that wait are translated together: those with equal search options in one batch."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from encdec.inference.translation import Translation
from encdec.inference.translator import Translator
from encdec.parallel.process_memory import trim_heap
from encdec.serving.requests import Asked
from encdec.types import InputError

_MOST_LINES = 256
"""The most sentences that are translated together, unless one request has more."""

Watch = Callable[[int, str], None]
"""Gets the index of a sentence of the request and its translation so far; in any thread."""
Found = list[list[Translation]]
"""The translations of each sentence of a request."""


@dataclass(eq=False)
class _Waiting:
    """A request that waits or is served, and who waits for it."""

    asked: Asked
    watch: Watch | None
    found: "asyncio.Future[Found]"


class Batcher:
    """Translates one batch of requests at a time, in the order in which they came.

    What a request gets does not depend on the others.

    Args:
      translator: the translator.
    """

    def __init__(self, translator: Translator) -> None:
        self._translator = translator
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None

    async def translate(self, asked: Asked, watch: Watch | None = None) -> Found:
        """Returns the translations of a request; if this is cancelled, its place is free.

        Args:
          asked: the request.
          watch: is called every few tokens while the request is served.

        Raises:
          InputError: the search options cannot be used with these sentences.
        """
        one = _Waiting(asked, watch, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._serve())
        try:
            return await one.found
        finally:
            if one in self._waiting:
                self._waiting.remove(one)

    async def _serve(self) -> None:
        """Serves batch after batch until no request waits."""
        while self._waiting:
            batch = self._next()
            try:
                results = await run_in_threadpool(self._translate, batch)
            except Exception as error:
                results = [error for _ in batch]
            for one, result in zip(batch, results, strict=True):
                if one.found.done():  # its client has left
                    continue
                if isinstance(result, Exception):
                    one.found.set_exception(result)
                else:
                    one.found.set_result(result)
            await run_in_threadpool(trim_heap)

    def _next(self) -> list[_Waiting]:
        """Takes the request that came first, and those that can be translated with it."""
        first = self._waiting[0].asked
        batch: list[_Waiting] = []
        room = _MOST_LINES
        for one in self._waiting:
            asked = one.asked
            equal = (asked.search, asked.nbest) == (first.search, first.nbest)
            if equal and (not batch or len(asked.lines) <= room):
                batch.append(one)
                room -= len(asked.lines)
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    def _translate(self, batch: list[_Waiting]) -> list[Found | Exception]:
        """The translations of each request, or its error."""
        asked = batch[0].asked
        owners = [(one, i) for one in batch for i in range(len(one.asked.lines))]

        def watch(index: int, text: str) -> None:
            one, i = owners[index]
            if one.watch:
                one.watch(i, text)

        try:
            found = self._translator.nbest(
                [one.asked.lines[i] for one, i in owners],
                asked.nbest,
                asked.search,
                example_ids=[i for _, i in owners],
                alignments=True,
                watch=watch if any(one.watch for one in batch) else None,
            )
        except InputError as error:
            if len(batch) == 1:
                return [error]
            return [result for one in batch for result in self._translate([one])]
        rest = iter(found)
        return [[next(rest) for _ in one.asked.lines] for one in batch]
