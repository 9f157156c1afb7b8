"""Real servers as child processes, and small ones of a test in a thread."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path


class Served:
    """A real server as a child process on a free port: `transformers serve`, or `command`."""

    def __init__(self, log, command=None, **variables):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
                       "NO_PROXY": "127.0.0.1", **variables}  # fmt: skip
        own = [Path(sys.executable).with_name("transformers"), "serve", "--device", "cpu",
               "--dtype", "float32"]  # fmt: skip
        self.process = subprocess.Popen(
            [*(command or own), "--host", "127.0.0.1", "--port", str(port)],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(self.url.replace("/v1", "/health"), timeout=5).close()
                return
            except OSError as error:
                if isinstance(error, urllib.error.HTTPError):  # it is there, and loads the model
                    error.close()
                assert self.process.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.3)

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def served_by(handler):
    """A server on loopback, ended with the block; its `url` is that of an OpenAI-like API."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    # It looks every 20 ms whether it should end; by default twice a second.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
