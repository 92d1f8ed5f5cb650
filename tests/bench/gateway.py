#!/usr/bin/env python3
"""Puts the gateway under load. `tests/bench/run` calls this.

gateway.py gate ROWS            the gateway and nginx in interleaved rounds; JSON lines into ROWS
gateway.py limits ROWS          the same with a key, budgets, rates and the ledger on every request
gateway.py rivals SCRIPT OUT    the gateway beside its rivals by that script; what it prints into OUT

ROUNDS and SECONDS_EACH set the size. Everything listens on loopback and ends with this program.
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SLUICE = HERE.parent.parent / "target/dist/sluice"
ROUNDS = int(os.environ.get("ROUNDS", 5))
SECONDS_EACH = int(os.environ.get("SECONDS_EACH", 4))
PORTS = {"nginx": 9102, "sluice": 9103}
CONNECTIONS = (32, 1)
# Few enough to be answered well within SECONDS_EACH.
COUNTED_REQUESTS = 4000 * SECONDS_EACH
START_SECONDS_MAX = 30
# Requests that wrk left unanswered end in far less.
SETTLE_SECONDS = 0.3


def main():
    # As an exception, so that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    match sys.argv[1:]:
        case ["gate", rows]:
            gate(pathlib.Path(rows), "sluice.toml")
        case ["limits", rows]:
            gate(pathlib.Path(rows), "limits.toml")
        case ["rivals", script, out]:
            rivals(script, pathlib.Path(out))
        case _:
            sys.exit(__doc__)


def gate(file, config):
    with tempfile.TemporaryDirectory() as work, file.open("w") as rows, nginx(work), sluice(work, config) as gateway:
        def row(**members):
            print(json.dumps(members), file=rows, flush=True)
            print("  ".join(f"{key} {value}" for key, value in members.items()), flush=True)

        same_answers()
        row(kind="memory", when="at rest", rss_kib=resident_kib(gateway.pid))
        for name in PORTS:
            load(name, 32, 1)
        row(kind="counted", **counted(gateway, 32, COUNTED_REQUESTS))
        for turn in range(ROUNDS):
            names = list(PORTS) if turn % 2 else list(PORTS)[::-1]
            for connections in CONNECTIONS:
                for name in names:
                    run = counted(gateway, connections) if name == "sluice" else load(name, connections, SECONDS_EACH)
                    row(kind="load", name=name, connections=connections, round=turn + 1, **run)
        row(kind="memory", when="after the load", rss_kib=resident_kib(gateway.pid))
        row(kind="log", lines=len(log_of(work).read_text().splitlines()))


def rivals(script, out):
    with tempfile.TemporaryDirectory() as work, out.open("w") as rows, sluice(work):
        target = f"sluice=http://127.0.0.1:{PORTS['sluice']}/v1/chat/completions"
        with subprocess.Popen([script, target], stdout=subprocess.PIPE, text=True) as running_script:
            for line in running_script.stdout:
                print(line, end="", flush=True)
                print(line, end="", file=rows)
        if running_script.returncode:
            sys.exit(f"{script} failed")


def load(name, connections, seconds, requests=None):
    """One run of wrk."""
    url = f"http://127.0.0.1:{PORTS[name]}/v1/chat/completions"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / "load.lua"), url]
    environment = {"PATH": os.environ["PATH"], "KEY": os.environ.get("KEY", "sk-test")}
    environment |= {"REQUESTS": str(requests)} if requests else {}
    environment |= {"KEYS": os.environ["KEYS"]} if "KEYS" in os.environ else {}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=seconds + 30)
    figures = json.loads(done.stdout.splitlines()[-1])
    # A fixed number is sent long before the time is up: no rate.
    return figures if requests else {"rps": round(figures["requests"] / figures["seconds"])} | figures


def counted(gateway, connections, requests=None):
    """One run of wrk against the gateway, with what the gateway and the upstream counted of it."""
    before = counts(), cpu_us(gateway.pid)
    figures = load("sluice", connections, SECONDS_EACH, requests)
    time.sleep(SETTLE_SECONDS)
    after = counts(), cpu_us(gateway.pid)
    seen = {key: after[0][key] - before[0][key] for key in before[0]}
    # The second look at nginx's count is in it.
    seen["hits"] -= 1
    rank_us = seen.pop("rank_time_us") / max(seen["rank"], 1)
    cpu = (after[1] - before[1]) / max(figures["requests"], 1)
    return figures | seen | {"rank_us": round(rank_us, 2), "gateway_cpu_us": round(cpu, 1)}


def counts():
    plugins = json.loads(get(PORTS["sluice"], "/admin/v1/plugins"))["plugins"]
    calls = {plugin["id"]: plugin["calls"] for plugin in plugins}
    rank = calls["priority"].get("rank", {"count": 0, "time_us": 0})
    plan = calls["openai"].get("plan", {"count": 0})
    hits = int(re.search(r"requests\s+\d+ \d+ (\d+)", get(9109, "/").replace("\n", " "))[1])
    return {"rank": rank["count"], "hits": hits, "plan": plan["count"], "rank_time_us": rank["time_us"]}


def same_answers():
    """Both ways lead to the same completion, or the load would measure errors."""
    body = re.search(r"wrk.body = '(.*)'", (HERE / "load.lua").read_text())[1]
    answers = {name: get(port, "/v1/chat/completions", body) for name, port in PORTS.items()}
    if len(set(answers.values())) != 1:
        sys.exit(f"the answers differ: {answers}")


def get(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('KEY', 'sk-test')}"}
        connection.request("POST" if body else "GET", path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    if answer.status != 200:
        sys.exit(f"port {port}, {path}: {answer.status} {text}")
    return text


@contextlib.contextmanager
def nginx(work):
    command = ["nginx", "-p", work, "-c", HERE / "nginx.conf"]
    log = pathlib.Path(work, "nginx.log")
    with running(command, log, {"PATH": os.environ["PATH"]}) as process:
        wait_for(lambda: answers_on(9109), process, log)
        yield process


@contextlib.contextmanager
def sluice(work, config="sluice.toml"):
    """The gateway as shipped: nothing in its environment but the vendor's key, its log in a file."""
    command = [SLUICE, "--config", HERE / config]
    log = log_of(work)
    if config == "limits.toml":
        limits = ["--requests-per-minute", "1000000000", "--tokens-per-minute", "1000000000", "--concurrent", "10000"]
        made = subprocess.run([*command, "key", "create", "--name", "bench", *limits], cwd=work,
                              env={"BENCH_KEY": "sk-bench"}, capture_output=True, text=True, check=True)
        os.environ["KEY"] = made.stdout.strip()
    with running(command, log, {"PATH": os.environ["PATH"], "BENCH_KEY": "sk-bench"}, cwd=work) as process:
        wait_for(lambda: "listening on" in log.read_text(), process, log)
        yield process


@contextlib.contextmanager
def running(command, log, environment, **options):
    with log.open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(is_ready, process, log):
    deadline = time.monotonic() + START_SECONDS_MAX
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{process.args[0]} did not start:\n{log.read_text()}")
        time.sleep(0.05)


def answers_on(port):
    try:
        get(port, "/")
        return True
    except OSError:
        return False


def log_of(work):
    return pathlib.Path(work, "sluice.log")


def cpu_us(pid):
    """User and system time of all threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000 / os.sysconf("SC_CLK_TCK")


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


if __name__ == "__main__":
    main()
