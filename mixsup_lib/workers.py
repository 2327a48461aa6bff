"""Worker processes of one thread each, which end together with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from mixsup_lib.errors import DataError


@contextmanager
def worker_pool(
    workers: int, writes: str | Path, start_method: str | None = None
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that write `writes`. On an error what has not begun is cancelled, what has begun still ends.

    A pool's processes wait for work for ever; a killed parent would leave them with the locks and the memory that
    they inherited. Raises DataError where one of them ended early.
    """
    context = multiprocessing.get_context(start_method)
    with ProcessPoolExecutor(workers, context, initializer=_begin) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise DataError(
                f"{writes}: a process that writes it ended early: too little memory, or a script without "
                "'if __name__ == \"__main__\":'; call again with workers=1."
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
