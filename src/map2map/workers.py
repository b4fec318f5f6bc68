"""Many jobs at once: on threads of this process, or on the workers of a dask scheduler."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from threading import Event
from typing import Any, Protocol, TypeVar

from map2map.errors import M2MError, RecipeError, SaveError

__all__ = ["Stoppable", "connected", "on_dask", "on_threads"]

PATIENCE = "20s"
"""How long a scheduler may take to answer."""

J = TypeVar("J", contravariant=True)
R = TypeVar("R", covariant=True)
Job = TypeVar("Job")
Result = TypeVar("Result")


class Stoppable(Protocol[J, R]):
    """A function of a job that gives up when an event is set."""

    def __call__(self, job: J, /, *, stop: Event | None = None) -> R:
        """Do the job."""


def on_threads(
    function: Stoppable[Job, Result],
    jobs: Sequence[Job],
    count: int,
    done: Callable[[Result], object],
) -> None:
    """Do jobs on threads; the first error stops the others and is raised.

    Args:
        function: Does one.
        jobs: What to do, in this order.
        count: How many threads.
        done: Given each result, on the thread of the caller, as they come.
    """
    stop = Event()
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(function, job, stop=stop) for job in jobs]
        try:
            for future in as_completed(futures):
                done(future.result())
        finally:
            stop.set()
            for future in futures:
                future.cancel()


def on_dask(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    scheduler: str,
    done: Callable[[Result], object],
) -> None:
    """Do jobs on dask's workers; the first error cancels the others and is raised.

    Args:
        function: Does one; it can be pickled.
        jobs: What to do.
        scheduler: Its address, or "local" for worker processes of this machine.
        done: Given each result as they come.

    Raises:
        RecipeError: If there is no scheduler at that address.
        SaveError: If dask gives up, because workers die.
    """
    as_they_come = import_module("distributed").as_completed
    with connected(scheduler) as client:
        futures = client.map(function, jobs, pure=False)
        try:
            for future in as_they_come(futures, loop=client.loop):
                done(future.result())
        except (M2MError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise SaveError(f"dask gave up: {error}; see the logs of its workers") from error
        finally:
            client.cancel(futures)


@contextmanager
def connected(scheduler: str) -> Iterator[Any]:
    """A client of dask's.

    Args:
        scheduler: Its address, or "local" for worker processes of this machine.

    Raises:
        RecipeError: If there is no scheduler at that address.
    """
    # its classes have no types
    distributed: Any = import_module("distributed")
    # what goes wrong is raised; the rest is of no interest to users
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with ExitStack() as stack:
        try:
            # a client that is the default and fails leaves dask's settings behind
            connect = partial(distributed.Client, set_as_default=False)
            if scheduler == "local":
                options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0"}
                cluster = stack.enter_context(distributed.LocalCluster(**options))
                client = stack.enter_context(connect(cluster))
            else:
                client = stack.enter_context(connect(scheduler, timeout=PATIENCE))
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"no dask scheduler answers at {scheduler!r}: {error}; give the address that "
                f"`dask scheduler` prints, such as tcp://host:8786, or local"
            ) from error
        yield client
