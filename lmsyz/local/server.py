"""The server process: reads its orders as one line of JSON, loads the model, says where it listens, and serves.

Started by ``lmsyz.local.start()`` as a script, so that it loads nothing of lmsyz. It ends as its standard
input is closed: that is, with its parent at the latest.
"""

import json
import os
import sys


def _orders() -> dict[str, object]:
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(0, 65536)
        if not more:
            raise SystemExit("this server is started by lmsyz.local.start()")
        data += more
    orders: dict[str, object] = json.loads(data)
    return orders


def main() -> None:
    """Serve until told to stop."""
    orders = _orders()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = orders["path"]
    params.model_alias = {orders["model"]}
    params.n_parallel = orders["slots"]
    params.n_ctx = orders["n_ctx"]
    params.port = orders["port"]
    params.n_threads_http = 64  # an idle connection holds one
    # Threads that share one answer wait for each other: where one finds no core of its own, all stand still.
    params.cpuparams.n_threads = max(1, (os.cpu_count() or 2) - 1)
    params.sampling.temp = 0.0  # the same answer to the same question, as near as a loaded server gets to it
    params.offline = True
    params.ui = False
    params.endpoint_slots = False  # would show one program's texts to another
    params.cors_origins = ""  # no web page may ask
    server = xllamacpp.Server(params)
    sys.stdout.write(json.dumps({"address": server.listening_address}) + "\n")
    sys.stdout.flush()
    while os.read(0, 65536):
        pass
    # The server's threads may be busy with an answer that nobody waits for any more.
    os._exit(0)


if __name__ == "__main__":
    main()
