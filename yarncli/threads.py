"""Work on several files at once, which an error or Ctrl-C ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from yarncli.progress import Advance

if TYPE_CHECKING:
    from concurrent.futures import Future

Result = TypeVar("Result")


class Stopped(Exception):
    """Another thread failed; this one gives up quietly."""


def in_parallel(
    jobs: Sequence[Callable[[Advance], None]],
    *,
    workers: int | None = None,
    progress: Advance | None = None,
    on_stop: Callable[[], None] | None = None,
) -> None:
    """Run jobs in several threads, in order; an error or Ctrl-C stops all of them.

    Args:
        jobs: each gets a function that it calls, often, with the number of bytes done; when the run
            is to stop, that function raises `Stopped`.
        workers: number of threads; by default one per processor, at most 4.
        progress: gets those numbers, one call at a time.
        on_stop: ends what the jobs wait for, where that is to be asked for.
    """
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    stop = threading.Event()
    lock = threading.Lock()

    def count(done: int) -> None:
        if stop.is_set():
            raise Stopped
        if progress and done:
            with lock:
                if stop.is_set():
                    raise Stopped
                try:
                    progress(done)
                except BaseException:
                    stop.set()
                    raise

    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(job, count) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            early = _errors(future for future in futures if future.done())
            if early:
                stop.set()
        except BaseException:
            stop.set()
            raise
        finally:
            if on_stop and stop.is_set():
                on_stop()
            pool.shutdown(cancel_futures=stop.is_set())
    # What a thread raises once it was stopped is not the cause. `Stopped` may even come first, from
    # a thread that was stopped by the failure of `progress` in another one.
    for error in sorted([*early, *_errors(futures)], key=lambda e: isinstance(e, Stopped)):
        raise error


def _errors(futures: Iterable[Future[None]]) -> list[BaseException]:
    """The exceptions of futures that are done, in the order of their jobs."""
    return [e for future in futures if not future.cancelled() and (e := future.exception())]


def in_order(jobs: Iterable[Callable[[], Result]], *, ahead: int = 4) -> Iterator[Result]:
    """The results of jobs, one after the other, while a few of the next are made by threads."""
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor

    coming = iter(jobs)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting = deque(pool.submit(job) for job in islice(coming, ahead))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(job) for job in islice(coming, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
