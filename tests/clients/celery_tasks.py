"""Celery with the SQS transport of kombu: a worker runs tasks, one of which fails at first and is retried.

Usage: celery_tasks.py ENDPOINT. It starts the worker, a process of its own, and sends the tasks.
"""

import os
import subprocess
import sys
import tempfile
import time
import uuid

from celery import Celery

ENDPOINT = os.environ.setdefault("SQS_ENDPOINT", sys.argv[1] if len(sys.argv) > 1 else "")
DONE = os.environ.setdefault("DONE", tempfile.mkdtemp())
QUEUE = os.environ.setdefault("QUEUE", f"celery-{uuid.uuid4().hex[:8]}")
host = ENDPOINT.split("//")[-1]

app = Celery("celery_tasks", broker=f"sqs://any:any@{host}")
app.conf.task_default_queue = QUEUE
app.conf.broker_transport_options = {"region": "us-east-1", "is_secure": False, "wait_time_seconds": 2, "visibility_timeout": 60}
app.conf.worker_hijack_root_logger = False


@app.task(bind=True, max_retries=3, acks_late=True)
def work(self, number):
    if number % 5 == 0 and self.request.retries == 0:
        raise self.retry(countdown=1)
    with open(os.path.join(DONE, str(number)), "a") as done:
        done.write("x")


def main():
    worker = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--pool", "solo", "--loglevel", "warning"]
    worker = subprocess.Popen(worker, cwd=os.path.dirname(os.path.abspath(__file__)))
    try:
        for number in range(20):
            work.delay(number)
        until = time.monotonic() + 90
        while len(os.listdir(DONE)) < 20:
            assert worker.poll() is None, "the worker ended"
            assert time.monotonic() < until, sorted(os.listdir(DONE))
            time.sleep(0.1)
    finally:
        worker.terminate()
        worker.wait(30)
    counts = {number: os.path.getsize(os.path.join(DONE, number)) for number in os.listdir(DONE)}
    assert set(counts.values()) == {1}, counts
    print("20 tasks, each once")


if __name__ == "__main__":
    main()
