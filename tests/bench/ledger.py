#!/usr/bin/env python3
"""Puts the ledger under load. `tests/bench/run` calls this.

ledger.py keys ROWS    CPU for each request with ten keys, and with 100,000 of which so many are used that
                       10,000 accounts are live, in interleaved rounds; JSON lines into ROWS
ledger.py long ROWS    LONG_SECONDS of full load: memory, disk, what the database says

Everything listens on loopback and ends with this program.
"""
import contextlib
import hashlib
import json
import os
import pathlib
import random
import signal
import sqlite3
import string
import subprocess
import sys
import tempfile
import time

import gateway

# Keys that there are, and that are used, one after the other: each has two accounts of its own.
CROWDS = {"few": (10, 10), "many": (100_000, 5_000)}
# Passes over all keys that are used, so that each has what it needs in memory: it goes after five seconds.
WARM_REQUESTS = 20_000
COUNTED_REQUESTS = 60_000
# wrk runs for so long, whatever it has to send: more than it takes.
WARM_SECONDS, COUNTED_SECONDS = 5, 9
LONG_SECONDS = int(os.environ.get("LONG_SECONDS", 300))
SAMPLE_SECONDS = 10
# Less than the load writes in that time: what there is has to be kept to.
RETENTION_KIB = 128 * 1024
ALPHABET = string.digits + string.ascii_letters


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    match sys.argv[1:]:
        case ["keys", rows]:
            keys(pathlib.Path(rows))
        case ["long", rows]:
            long(pathlib.Path(rows))
        case _:
            sys.exit(__doc__)


def printer(rows):
    def row(**members):
        print(json.dumps(members), file=rows, flush=True)
        print("  ".join(f"{key} {value}" for key, value in members.items()), flush=True)

    return row


def keys(file):
    with contextlib.ExitStack() as ends:
        row = printer(ends.enter_context(file.open("w")))
        work = ends.enter_context(tempfile.TemporaryDirectory())
        ends.enter_context(gateway.nginx(work))
        crowds = {name: ends.enter_context(crowd(*sizes)) for name, sizes in CROWDS.items()}
        for turn in range(gateway.ROUNDS):
            for name in list(crowds) if turn % 2 else list(crowds)[::-1]:
                process, _, port, folder = crowds[name]
                load(crowds[name], WARM_REQUESTS, WARM_SECONDS)
                before = gateway.cpu_us(process.pid)
                figures = load(crowds[name], COUNTED_REQUESTS, COUNTED_SECONDS)
                cpu = (gateway.cpu_us(process.pid) - before) / figures["requests"]
                accounts = metric(port, "sluice_ledger_accounts")
                row(kind="keys", name=name, round=turn + 1, **figures, gateway_cpu_us=round(cpu, 1), accounts=accounts,
                    rss_kib=gateway.resident_kib(process.pid))


@contextlib.contextmanager
def crowd(known, used):
    """A gateway with so many keys, and a file with those that are used."""
    with tempfile.TemporaryDirectory() as work:
        port = gateway.PORTS["sluice"] + (known > 10)
        config = pathlib.Path(work, "sluice.toml")
        text = (gateway.HERE / "limits.toml").read_text().replace("127.0.0.1:9103", f"127.0.0.1:{port}")
        config.write_text(text)
        command = [gateway.SLUICE, "--config", config]
        environment = {"PATH": os.environ["PATH"], "BENCH_KEY": "sk-bench"}
        made = subprocess.run([*command, "key", "create", "--name", "k0", "--requests-per-minute", "1000000000"],
                              cwd=work, env=environment, capture_output=True, text=True, check=True)
        listed = pathlib.Path(work, "keys.txt")
        listed.write_text("\n".join([made.stdout.strip(), *more_keys(pathlib.Path(work, "data/sluice.db"), known - 1)][:used]) + "\n")
        log = gateway.log_of(work)
        with gateway.running(command, log, environment, cwd=work) as process:
            gateway.wait_for(lambda: "listening on" in log.read_text(), process, log)
            yield process, listed, port, work


def more_keys(database, count):
    """Copies of the one key that is there, each with a secret of its own."""
    chance = random.Random(1)
    draw = lambda length: "".join(chance.choices(ALPHABET, k=length))
    drawn = [(draw(12), draw(43)) for _ in range(count)]
    with contextlib.closing(sqlite3.connect(database)) as store, store:
        terms, created_ms = store.execute("SELECT terms, created_ms FROM keys").fetchone()
        rows = ((key, json.dumps(json.loads(terms) | {"name": f"key-{key}"}), created_ms,
                 hashlib.sha256((key + secret).encode()).digest()) for key, secret in drawn)
        store.executemany("INSERT INTO keys (id, terms, created_ms, digest) VALUES (?, ?, ?, ?)", rows)
    return [f"sk-sluice-{key}-{secret}" for key, secret in drawn]


def load(crowd, requests, seconds):
    _, listed, port, _ = crowd
    os.environ["KEYS"], gateway.PORTS["crowd"] = str(listed), port
    figures = gateway.load("crowd", 32, seconds, requests)
    if figures["bad_status"] or figures["socket_errors"] or figures["requests"] < requests:
        sys.exit(f"not all were answered: {figures}")
    return figures


def long(file):
    with file.open("w") as rows, tempfile.TemporaryDirectory() as work, gateway.nginx(work):
        row = printer(rows)
        config = pathlib.Path(work, "limits.toml")
        config.write_text((gateway.HERE / "limits.toml").read_text() + f'\n[ledger]\nretention = "{RETENTION_KIB // 1024}MiB"\n')
        environment = {"PATH": os.environ["PATH"], "BENCH_KEY": "sk-bench"}
        command = [gateway.SLUICE, "--config", config]
        made = subprocess.run([*command, "key", "create", "--name", "bench"], cwd=work, env=environment, capture_output=True,
                              text=True, check=True)
        os.environ["KEY"] = made.stdout.strip()
        log = gateway.log_of(work)
        with gateway.running(command, log, environment, cwd=work) as process:
            gateway.wait_for(lambda: "listening on" in log.read_text(), process, log)
            begun = time.monotonic()
            while time.monotonic() - begun < LONG_SECONDS:
                figures = gateway.load("sluice", 32, SAMPLE_SECONDS)
                disk = sum(file.stat().st_size for file in pathlib.Path(work, "data").rglob("*") if file.is_file())
                row(kind="long", second=round(time.monotonic() - begun), rps=figures["rps"], bad_status=figures["bad_status"],
                    rss_kib=gateway.resident_kib(process.pid), disk_kib=disk // 1024,
                    retention_kib=RETENTION_KIB,
                    waiting=metric(gateway.PORTS["sluice"], "sluice_ledger_waiting"),
                    trouble=metric(gateway.PORTS["sluice"], "sluice_ledger_trouble"))


def metric(port, name):
    page = gateway.get(port, "/metrics")
    return next((float(line.split()[-1]) for line in page.splitlines() if line.startswith(name + " ")), None)


if __name__ == "__main__":
    main()
