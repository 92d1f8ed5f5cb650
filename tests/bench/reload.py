#!/usr/bin/env python3
"""Measures plugins swapped under load, and writes RELOAD.md. `tests/bench/reload` calls this.

reload.py RESULTS

RELOADS (500), TIMES (20), ROUNDS (5) set the size. Everything listens on loopback and ends with this program.
"""
import contextlib
import datetime
import hashlib
import http.client
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import gateway
import report

ROOT = gateway.HERE.parent.parent
ADDRESS = f"127.0.0.1:{gateway.PORTS['sluice']}"
RELOADS = int(os.environ.get("RELOADS", 500))
TIMES = int(os.environ.get("TIMES", 20))
ROUNDS = int(os.environ.get("ROUNDS", 5))
EARLY = 20
IDLE_SECONDS = 10
LOAD_SECONDS = 3
ADMISSION_EVERY_SECONDS = 0.4
BESIDE = ("nothing", "admission", "an idle-priority loop")
LIVE_SECONDS_MAX = 30
SEAL_BYTES = 46
MARK = b"MARK:"
QUESTION = {"messages": [{"role": "user", "content": "hello"}]}
BODY = json.dumps({"model": "gpt-4o-mini"} | QUESTION)


def main():
    rows = []
    parts = {"live": lambda: live(True) + live(False), "storm": storm, "admission": admission}
    for name in os.environ.get("PARTS", "live storm admission").split():
        rows += parts[name]()
    if len({row["kind"] for row in rows}) < len(parts):
        return "not all parts were run: no results are written"
    results = pathlib.Path(sys.argv[1])
    gates = judge(rows)
    results.write_text(page(rows, gates))
    for what, wanted, seen, holds in gates:
        print(f"{'pass' if holds else 'FAIL'}  {what}: {seen} (wanted {wanted})")
    return 0 if all(gate[-1] for gate in gates) else 1


def live(events):
    """From the start of the copy to the first answer by the new version, for an adapter and a policy."""
    rows = []
    with serving(events) as (_, folder):
        answer, phase = Client(), random.Random(0)
        for turn in range(1, TIMES + 1):
            for kind, file, model, bytes_, wanted in (
                ("adapter", "marked.wasm", "marked", marked("adapter", f"v{turn}"), f"v{turn}"),
                ("policy", "policy.wasm", "ranked", relabelled(marked("policy", turn % 2), turn),
                 f"v{turn}" if turn % 2 else "hello"),
            ):
                staged = folder.parent / "staged.wasm"
                staged.write_bytes(bytes_)
                # At no particular moment between two looks at the folder.
                time.sleep(1 + phase.random())
                began = time.monotonic()
                subprocess.run(["cp", staged, folder / file], check=True)
                took = until(lambda: answer.content(model) == wanted, began)
                rows.append({"kind": "live", "events": events, "plugin": kind, "ms": round(took * 1e3, 1)})
                show(rows[-1])
    return rows


def storm():
    """Two builds in turn under load: every answer is by one of them, and memory stays where it is."""
    rows = []
    with serving(True) as (process, folder), tempfile.TemporaryDirectory() as work:
        full, paused = (rate_of(wrk(work, 3, part)) for part in (0, 1))
        # wrk pauses by whole milliseconds: so many requests are paused that half the rate is left.
        part = (2 / full - 1 / full) / (1 / paused - 1 / full)
        before = snapshot()["generation"]
        # Load runs in two parts, each with an idle time after it.
        parts = []
        for reloads in (EARLY, RELOADS - EARLY):
            stop = pathlib.Path(work, f"stop{reloads}")
            load = wrk(work, 3600, part, stop)
            time.sleep(0.5)
            for turn in range(reloads):
                swap(folder, ("tick", "tock")[turn % 2])
            stop.touch()
            time.sleep(1)
            load.send_signal(2)
            parts.append(json.loads(load.communicate(timeout=30)[0].splitlines()[-1]))
            time.sleep(IDLE_SECONDS)
            rows.append({"kind": "memory", "after": reloads if reloads == EARLY else RELOADS,
                         "rss_kib": gateway.resident_kib(process.pid)})
            show(rows[-1])
        total = {key: sum(part[key] for part in parts)
                 for key in ("requests", "tick", "tock", "other", "bad_status", "socket_errors")}
        seconds = sum(part["seconds"] for part in parts)
        rows.append({"kind": "storm", "reloads": RELOADS, "generations": snapshot()["generation"] - before,
                     "full_rps": round(full), "rps": round(total["requests"] / seconds)} | total)
        show(rows[-1])
    return rows


def swap(folder, text):
    """Moves a version in, and waits until it serves."""
    staged = folder.parent / "staged.wasm"
    staged.write_bytes(marked("adapter", text))
    dropped = folder / "marked.wasm"
    os.replace(staged, dropped)
    until(lambda: serves(dropped), time.monotonic(), 0.02)


def serves(file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return any(plugin["digest"] == digest for plugin in snapshot()["plugins"])


def admission():
    """Open-loop load at half of what the gateway can do, beside nothing, an admission, and the control."""
    rows = []
    with tempfile.TemporaryDirectory() as work, gateway.nginx(work), serving(True) as (_, folder):
        # What gets through when the same program asks for more than can be served.
        full = json.loads(openloop(100_000, 1).communicate()[0])
        rate = round(full["requests"] / full["seconds"] / 2)
        shout = (ROOT / "target/examples/shout.wasm").read_bytes()
        # Made before the load, so that making them is no part of it.
        drops = ROUNDS * round(LOAD_SECONDS / ADMISSION_EVERY_SECONDS + 1)
        staged = [folder.parent / f"{label}.wasm" for label in range(drops)]
        for label, file in enumerate(staged):
            file.write_bytes(relabelled(shout, label))
        for turn in range(ROUNDS):
            for beside in (BESIDE if turn % 2 else reversed(BESIDE)):
                began = snapshot()["generation"]
                with idle_loop() if beside == "an idle-priority loop" else contextlib.nullcontext():
                    load = openloop(rate, LOAD_SECONDS)
                    while beside == "admission" and load.poll() is None:
                        os.rename(staged.pop(), folder / "shout.wasm")
                        time.sleep(ADMISSION_EVERY_SECONDS)
                    figures = json.loads(load.communicate()[0])
                if beside == "admission":
                    # The last one may still be on its way: not into the next round.
                    until(lambda: serves(folder / "shout.wasm"), time.monotonic(), 0.02)
                admitted = snapshot()["generation"] - began
                rows.append({"kind": "admission", "beside": beside, "round": turn + 1, "rate": rate,
                             "admitted": admitted, "plugin_bytes": len(shout)} | figures)
                show(rows[-1])
    return rows


@contextlib.contextmanager
def idle_loop():
    """The control: nothing of ours runs, but a loop that gives way to everybody keeps one processor from resting."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"],
                            preexec_fn=lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)))
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def openloop(rate, seconds):
    command = [ROOT / "target/dist/sluice-openloop", ADDRESS, BODY, str(rate), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def judge(rows):
    gates = []
    for events, most in ((True, 500), (False, 1600)):
        for plugin in ("adapter", "policy"):
            times = [row["ms"] for row in rows if row["kind"] == "live" and (row["events"], row["plugin"]) == (events, plugin)]
            median = statistics.median(times)
            gates.append((f"{plugin} live, file events {'on' if events else 'off'}, {len(times)} times",
                          f"median at most {most} ms", f"median {median:.0f} ms, worst {max(times):.0f} ms", median <= most))
    storm_row = next(row for row in rows if row["kind"] == "storm")
    bad = storm_row["other"] + storm_row["bad_status"] + storm_row["socket_errors"]
    gates.append((f"{RELOADS} reloads: answers by neither version, not 2xx, socket errors", "0", str(bad), bad == 0))
    both = storm_row["tick"] + storm_row["tock"]
    gates.append(("the same: answers by one of the two, of all that wrk sent", "all",
                  f"{both} of {storm_row['requests']}", both == storm_row["requests"]))
    gates.append(("the same: generations", str(RELOADS), str(storm_row["generations"]), storm_row["generations"] == RELOADS))
    early, late = (row["rss_kib"] / 1024 for row in rows if row["kind"] == "memory")
    gates.append((f"memory after reload {EARLY} and {RELOADS}, {IDLE_SECONDS} s idle", "within 10 MiB",
                  f"{early:.1f} and {late:.1f} MiB", abs(late - early) <= 10))
    p99 = {beside: statistics.median(row["p99_us"] for row in rows if row["kind"] == "admission" and row["beside"] == beside)
           for beside in BESIDE}
    gates.append((f"p99 while a plugin is admitted, medians of {ROUNDS}", "at most twice the quiet one",
                  ", ".join(f"{beside} {p99[beside]:.0f} µs" for beside in BESIDE), p99["admission"] <= 2 * p99["nothing"]))
    return gates


def page(rows, gates):
    facts = [("commit", report.output("git", "rev-parse", "HEAD")),
             ("date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
             ("machine", f"{report.cpu_model()}, {os.cpu_count()} cores, {report.memory_gib()} GiB"),
             ("command", f"RELOADS={RELOADS} TIMES={TIMES} ROUNDS={ROUNDS} tests/bench/reload")]
    head = "\n".join(["# Plugins swapped under load", "", "Written by `tests/bench/reload`; a new run replaces it.", "",
                      "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts)])
    text = ("*Live* is from the start of `cp` to the first answer by the new version, asked for without pause.\n"
            "The storm runs beside 32 connections of wrk, paused to about half of full load.\n"
            f"In admission rounds a plugin that was never seen is dropped every {ADMISSION_EVERY_SECONDS} s; time counts from when\n"
            "a request was due. The idle-priority loop is the control: no plugin is admitted, but something that gives\n"
            "way to everybody keeps a processor from resting, as the compiler does. What it costs is the kernel's.")
    raw = "\n".join(["## Raw rows", "", report.block("\n".join(map(json.dumps, rows)))])
    return "\n\n".join([head, text, report.gate_table(gates), raw]) + "\n"


@contextlib.contextmanager
def serving(events):
    """A gateway in a folder of its own, with both guests in place."""
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work, "plugins.d")
        folder.mkdir()
        (folder / "marked.wasm").write_bytes(marked("adapter", "tock"))
        (folder / "policy.wasm").write_bytes(marked("policy", 0))
        text = (gateway.HERE / "reload.toml").read_text().replace("file_events = true", f"file_events = {str(events).lower()}")
        pathlib.Path(work, "sluice.toml").write_text(text)
        log = gateway.log_of(work)
        with gateway.running([gateway.SLUICE], log, {"PATH": os.environ["PATH"]}, cwd=work) as process:
            gateway.wait_for(lambda: "listening on" in log.read_text(), process, log)
            yield process, folder


class Client:
    """One connection that asks again and again."""

    def __init__(self):
        self.connection = http.client.HTTPConnection(ADDRESS, timeout=5)

    def content(self, model):
        body = json.dumps({"model": model} | QUESTION)
        self.connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{answer.status} {text}")
        return json.loads(text)["choices"][0]["message"]["content"]


def rate_of(load):
    figures = json.loads(load.communicate()[0].splitlines()[-1])
    return figures["requests"] / figures["seconds"]


def wrk(work, seconds, paused, stop=None):
    environment = {"PATH": os.environ["PATH"], "PAUSED": str(paused)} | ({"STOP_FILE": str(stop)} if stop else {})
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "-s", gateway.HERE / "reload.lua", f"http://{ADDRESS}/v1/chat/completions"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=work)


def snapshot():
    return json.loads(gateway.get(gateway.PORTS["sluice"], "/admin/v1/plugins"))


def until(holds, began, pause=0.0):
    while not holds():
        if time.monotonic() - began > LIVE_SECONDS_MAX:
            sys.exit("it did not come to serve")
        time.sleep(pause)
    return time.monotonic() - began


def marked(kind, text):
    """A guest with its mark; `tests/src/versions.rs` does the same."""
    built = (ROOT / f"target/guests/marked-{kind}.wasm").read_bytes()[:-SEAL_BYTES]
    at = built.index(MARK)
    return sealed(built[:at] + f"MARK:ok:{text}".encode().ljust(64) + built[at + 64:])


def relabelled(component, label):
    name = f"label {label}".encode()
    return sealed(component[:-SEAL_BYTES] + bytes([0, 1 + len(name), len(name)]) + name)


def sealed(component):
    return component + bytes([0, 44, 11]) + b"sluice-seal" + hashlib.sha256(component).digest()


def show(row):
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
