"""A server, and the workers of a task queue beside it, whose progress its pages follow.

The workers are forked from a process that has imported the application, as Celery's are. The server
and the workers share a Redis: start one, and

    export COMET_BROKER=redis://127.0.0.1/0
    uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.tasks:app
    python -m examples.tasks tidy sweep polish
"""

import multiprocessing
import os
import sys
from multiprocessing.queues import SimpleQueue

from fastapi import FastAPI

from asgi_comet import SITE, Comet, CometMiddleware

broker = os.environ.get("COMET_BROKER", "redis://127.0.0.1/0")
comet = Comet("change me: a secret of at least 32 bytes", broker=broker)
done = comet.create(scope=SITE, name="done", type=str)
progress = comet.family("progress:{job}", type=int)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


def work(jobs: "SimpleQueue[str | None]") -> None:
    """Do jobs, in a process of its own, until there are no more."""
    with comet.publishing():  # connected until the process ends
        for job in iter(jobs.get, None):
            with comet.publishing():  # the job has ended when its messages are stored
                for percent in (0, 50, 100):
                    progress.publish(percent, job=job)
                done.publish(job)


def main(names: list[str], count: int = 2) -> None:
    """Have a pool of processes do jobs."""
    fork = multiprocessing.get_context("fork")
    jobs: SimpleQueue[str | None] = fork.SimpleQueue()
    pool = [fork.Process(target=work, args=(jobs,)) for _ in range(count)]
    for process in pool:
        process.start()
    for job in [*names, *[None] * count]:
        jobs.put(job)
    for process in pool:
        process.join()
    sys.exit(any(process.exitcode for process in pool))


if __name__ == "__main__":
    main(sys.argv[1:])
