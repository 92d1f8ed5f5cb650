#!/usr/bin/env python3
"""Measures streams through the gateway beside the same streams direct. `tests/bench/run` calls this.

streams.py ROWS    JSON lines into ROWS

First content: from sending a request to the first bytes with content, in interleaved rounds. Leaving: from a
client's close to the vendor's noticing, while the vendor is silent, by the stand-in's books.
STREAMS (1000) and LEAVERS (100) set the size. Everything listens on loopback and ends with this program.
"""
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import sys
import tempfile
import time

from gateway import SLUICE, running, wait_for

SIMULATE = SLUICE.parent / "sluice-simulate"
STREAMS = int(os.environ.get("STREAMS", 1000))
LEAVERS = int(os.environ.get("LEAVERS", 100))
WARM_UP = 50
# Long enough that the vendor has fallen silent.
SILENCE_SECONDS = 0.02
ADAPTERS = {"openai": b'"content":"You', "anthropic": b'"text":"You'}
SILENCES = {"before headers": {"at": "headers"}, "in the stream": {"at": "body", "events": 6}}
CONFIG = """
[server]
listen = "127.0.0.1:0"
"""
UPSTREAM = """
[upstreams.{name}]
adapter = "{name}"
base_url = "http://{vendor}/v1"
secrets = {{ api-key = "env:BENCH_KEY" }}
timeouts = {{ headers = "1h", first_content = "1h", idle = "1h" }}
[[models]]
name = "{name}"
targets = [{{ upstream = "{name}" }}]
"""


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as work, simulate(work) as vendor, sluice(work, vendor) as gateway:
        with pathlib.Path(sys.argv[1]).open("w") as rows:
            for row in [*first_content(vendor, gateway), *leaving(vendor, gateway)]:
                print(json.dumps(row), file=rows)


def first_content(vendor, gateway):
    """Each way has its own connection; they take turns."""
    ways = {}
    for adapter, content in ADAPTERS.items():
        ways[adapter, "direct"] = Connection(vendor), direct_request(adapter), content
        # The gateway's clients speak OpenAI's wire, whatever the vendor does.
        ways[adapter, "gateway"] = Connection(gateway), request(adapter), ADAPTERS["openai"]
    times = {way: [] for way in ways}
    for turn in range(WARM_UP + STREAMS):
        for way, (connection, head, content) in ways.items():
            took = connection.until(head, content)
            if turn >= WARM_UP:
                times[way].append(round(took * 1e6, 1))
    return [{"kind": "first content", "adapter": adapter, "way": way, "us": us} for (adapter, way), us in times.items()]


def leaving(vendor, gateway):
    for silence, fault in SILENCES.items():
        for way, address, head in [("direct", vendor, direct_request("openai")), ("gateway", gateway, request("openai"))]:
            control(vendor, "PUT", "/_simulate/vendors/default", {"faults": [{"kind": "hang", "times": 0} | fault]})
            control(vendor, "DELETE", "/_simulate/books")
            times = [leave(address, head) for _ in range(LEAVERS)]
            books = control(vendor, "GET", f"/_simulate/books?finished={LEAVERS}")
            rows = books["rows"]
            if len(rows) != LEAVERS or any(row["left_after_ms"] is None for row in rows):
                sys.exit(f"{silence}, {way}: the stand-in has not seen all leave: {books['totals']}")
            # The stand-in counts whole milliseconds, and from the head's arrival, which is later than its sending.
            late = [row["left_after_ms"] + 1 - stayed * 1e3 for row, stayed in zip(rows, times)]
            yield {"kind": "leaving", "silence": silence, "way": way, "ms": [round(ms, 1) for ms in late]}
    control(vendor, "DELETE", "/_simulate/vendors/default")


def leave(address, head):
    """How long the client stayed, from sending."""
    connection = Connection(address)
    sent = time.perf_counter()
    connection.socket.sendall(head)
    time.sleep(SILENCE_SECONDS)
    stayed = time.perf_counter() - sent
    connection.socket.close()
    return stayed


class Connection:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def until(self, head, content):
        """Seconds from sending to `content`; the rest of the answer is read as well."""
        begun = time.perf_counter()
        self.socket.sendall(head)
        seen, found = b"", None
        while not seen.endswith(b"\r\n0\r\n\r\n"):
            piece = self.socket.recv(65536)
            if not piece:
                sys.exit(f"the connection ended: {seen!r}")
            seen += piece
            if found is None and content in seen:
                found = time.perf_counter() - begun
        if found is None:
            sys.exit(f"no content: {seen!r}")
        return found


def request(model):
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "one two three"}]}
    return post("/v1/chat/completions", body, {"Authorization": "Bearer sk-bench"})


def direct_request(adapter):
    if adapter == "openai":
        return request(adapter)
    body = {"model": adapter, "stream": True, "max_tokens": 4096,
            "messages": [{"role": "user", "content": "one two three"}]}
    return post("/v1/messages", body, {"x-api-key": "sk-bench", "anthropic-version": "2023-06-01"})


def post(path, body, headers, method="POST"):
    text = json.dumps(body)
    fields = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": len(text)} | headers
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n" + text).encode()


def control(vendor, method, path, body=None):
    connection = http.client.HTTPConnection(vendor, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body) if body else None)
        answer = connection.getresponse()
        text = answer.read()
    if answer.status not in (200, 204):
        sys.exit(f"{method} {path}: {answer.status} {text!r}")
    return json.loads(text) if text else None


@contextlib.contextmanager
def simulate(work):
    log = pathlib.Path(work, "simulate.log")
    with running([SIMULATE], log, {}) as process:
        yield listening(process, log)


@contextlib.contextmanager
def sluice(work, vendor):
    config, log = pathlib.Path(work, "sluice.toml"), pathlib.Path(work, "sluice.log")
    config.write_text(CONFIG + "".join(UPSTREAM.format(name=name, vendor=vendor) for name in ADAPTERS))
    with running([SLUICE, "--config", config], log, {"BENCH_KEY": "sk-bench"}, cwd=work) as process:
        yield listening(process, log)


def listening(process, log):
    said = "listening on http://"
    wait_for(lambda: said in log.read_text(), process, log)
    return log.read_text().split(said)[1].split()[0]


if __name__ == "__main__":
    main()
