"""llama.cpp's server, as the package xllamacpp carries it: `python llama_server.py MODEL.gguf`."""

from __future__ import annotations

import argparse
import time

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--context", type=int, default=0, help="tokens; 0 is the model's own")
    given = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.n_ctx, params.n_parallel, params.warmup = given.context, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames, params.port = [given.host], given.port
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    time.sleep(600)  # a test that forgets it leaves nothing behind


if __name__ == "__main__":
    main()
