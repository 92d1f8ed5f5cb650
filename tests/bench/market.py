#!/usr/bin/env python3
"""Plays seasons of the stand-in's market, and writes MARKET.md. `tests/bench/market` calls this and says what sets
the size.

market.py RESULTS

Everything listens on loopback and ends with this program.
"""
import concurrent.futures
import contextlib
import datetime
import decimal
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import gateway
import report
import seasons

BINARIES = pathlib.Path(os.environ.get("BINARIES", gateway.SLUICE.parent))
JOBS = int(os.environ.get("JOBS", 5000))
SEEDS = int(os.environ.get("SEEDS", 20))
FIRST_SEED = int(os.environ.get("FIRST_SEED", 1))
LIMIT_SEEDS = int(os.environ.get("LIMIT_SEEDS", 5))
ARRIVALS = int(os.environ.get("ARRIVALS", seasons.ARRIVALS_PER_SECOND))
AT_ONCE = int(os.environ.get("AT_ONCE", 2))
SETS = os.environ.get("SETS", " ".join(seasons.RIVALS)).split()
STRATEGIES = os.environ.get("STRATEGIES", " ".join(seasons.STRATEGIES)).split()
PLUGINS = os.environ.get("PLUGINS")
LIMIT = decimal.Decimal(seasons.LIMIT_USD)
KEY, MARKET_KEY = "sk-of-the-season", "mk-of-the-season"
# Far beyond what a season takes on a machine that does something else too.
SEASON_SECONDS_MAX = 600
NOBODY_BARS = "100000"


class Wrong(Exception):
    """The books do not agree, or a season did not end."""


def main():
    # As an exception, so that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    wanted = [(rivals, strategy, seed, False) for seed in range(FIRST_SEED, FIRST_SEED + SEEDS)
              for rivals in SETS for strategy in STRATEGIES]
    wanted += [(SETS[0], "minimum", seed, True) for seed in range(FIRST_SEED, FIRST_SEED + LIMIT_SEEDS)]
    rows = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as players:
        for row in players.map(lambda of: played(*of), wanted):
            rows.append(row)
            print(json.dumps(row), flush=True)
    gates = judge(rows)
    pathlib.Path(sys.argv[1]).write_text(page(rows, gates))
    for what, seen, holds in gates:
        print(f"{'pass' if holds else 'FAIL'}  {what}: {seen}")
    return 0 if all(gate[-1] for gate in gates) else 1


# === a season ===

def played(rivals, strategy, seed, limited):
    """One season, from an empty data folder to books that agree."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work, simulator(work) as fair:
        put(fair, "/_simulate/markets/m", script(rivals, seed, limited))
        address = f"127.0.0.1:{free_port()}"
        pathlib.Path(work, "sluice.toml").write_text(config(fair, address, strategy, limited))
        if PLUGINS:
            shutil.copytree(PLUGINS, pathlib.Path(work, "plugins.d"))
        with gateway_in(work) as process:
            books = ended(fair, address, process, work)
            cpu, rss = gateway.cpu_us(process.pid) / 1e6, gateway.resident_kib(process.pid)
            told = get(address, "/admin/v1/market")
            said = report_of(work)
            log = gateway.log_of(work).read_text()
        vendor = get(fair, "/_simulate/books?vendor=v")
    row = {"rivals": rivals, "strategy": strategy, "seed": seed, "limited": limited}
    row |= agreed(books, vendor, said, f"{rivals} {strategy} {seed}")
    tally = next((tally for tally in told["strategies"] if tally["name"] == strategy), {})
    row |= {"passed_over": sorted(tally.get("passed_over", {})), "scans": told["scans"], "seconds": round(time.monotonic() - began, 1),
            "gateway_cpu_s": round(cpu, 1), "gateway_rss_mib": round(rss / 1024), "pauses": log.count("bidding pauses")}
    return row


def script(rivals, seed, limited):
    return {
        "seed": seed,
        "season": {"instances": JOBS, "arrivals_per_second": ARRIVALS, "on_scan": True,
                   "open_ms": seasons.OPEN_MS, "reward_timeout_ms": seasons.REWARD_TIMEOUT_MS, "rival_ms": 20},
        "classes": seasons.DEAR_CLASSES if limited else seasons.CLASSES,
        "requesters": seasons.REQUESTERS,
        "rivals": seasons.RIVALS[rivals],
        "accounts": [{"username": "us", "password": "secret", "api_key": MARKET_KEY, "balance": 10}],
    }


def config(fair, address, strategy, limited):
    """One strategy, with bounds that never bar but for the one that is shown."""
    return f"""
[server]
listen = "{address}"
[upstreams.v]
adapter = "openai"
base_url = "http://{fair}/v/v1"
secrets = {{ api-key = "env:KEY" }}
[[models]]
name = "serves"
targets = [{{ upstream = "v", model = "big", price = {{ input = "{seasons.PRICE['input']}", output = "{seasons.PRICE['output']}" }}, max_output = 4096 }}]
[market]
base_url = "http://{fair}/_market/m"
endpoint = "http://{address}/v1/completions/"
api_key = "env:MARKET_KEY"
model = "serves"
scan_every = "100ms"
jobs = 10000
bids_per_minute = 60000
risk_usd = "{NOBODY_BARS}"
loss_usd_per_day = "{LIMIT if limited else NOBODY_BARS}"
[[market.strategies]]
plugin = "{strategy}"
"""


def ended(fair, address, process, work):
    """The market's books, when all jobs have ended there and in the gateway's own."""
    deadline = time.monotonic() + SEASON_SECONDS_MAX
    time.sleep(JOBS / ARRIVALS)

    def still(what):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Wrong(f"{what}:\n{gateway.log_of(work).read_text()[-4000:]}")

    while (books := get(fair, f"/_simulate/markets/m/books?final={JOBS}"))["totals"]["final"] < JOBS:
        still("the season has not ended")
    while (told := get(address, "/admin/v1/market"))["open"] + told["won"]:
        still(f"jobs have not ended: {told['open']} open, {told['won']} won")
        time.sleep(0.2)
    # What is not followed any more is written down a moment later.
    while any(row["under_way"] for row in report_of(work)):
        still("jobs have not ended in the report")
    return books


def agreed(books, vendor, said, name):
    """Profit by the stand-in's books. The gateway's report says the same of each job, or this fails."""
    if vendor["totals"]["rows_left_out"]:
        raise Wrong(f"{name}: the vendor's books are not whole")
    ours = {}
    for job in books["instances"]:
        bids = [bid for bid in job["bids"] if bid["provider"] == "us"]
        if len(bids) > 1:
            raise Wrong(f"{name}: {len(bids)} bids for {job['id']}")
        if bids:
            ours[job["id"]] = (job, bids[0])
    reported = {row["job"]: row for row in said if not row["refused"]}
    if set(ours) != set(reported):
        raise Wrong(f"{name}: bids on {len(ours)} jobs in the books, {len(reported)} in the report")
    verdicts = {}
    for job_id, (job, bid) in ours.items():
        row, calls = reported[job_id], job["calls"]
        cost = sum((cost_of(call["prompt_tokens"] or 0, call["completion_tokens"] or 0) for call in calls), usd(0))
        paid = usd(job["paid"]) if job["winner"] == "us" else usd(0)
        won = job["winner"] == "us"
        seen = tuple(usd(row[member]) for member in ("bid_usd", "cost_usd", "earned_usd"))
        # The report sums what was bid for jobs that were won.
        if seen != (usd(bid["amount"]) if won else usd(0), cost, paid) or row["lost"] != (not won):
            raise Wrong(f"{name}: the report says {row}, the books say {job}")
        for call in calls:
            verdicts[call["verdict"]] = verdicts.get(call["verdict"], 0) + 1
    billed = [row["billed"] for row in vendor["rows"]]
    cost = cost_of(sum(row["prompt_tokens"] for row in billed), sum(row["completion_tokens"] for row in billed))
    earned = usd(next(provider for provider in books["providers"] if provider["name"] == "us")["earned"])
    totals = sum((usd(row["cost_usd"]) for row in said), usd(0)), sum((usd(row["earned_usd"]) for row in said), usd(0))
    if totals != (cost, earned):
        raise Wrong(f"{name}: the report says {totals}, vendor and market say {(cost, earned)}")
    won = [job for job, _ in ours.values() if job["winner"] == "us"]
    return {
        "jobs": len(books["instances"]), "bids": len(ours), "won": len(won), "refused": len(said) - len(reported),
        "failed": sum(job["status"] == "failed" for job in won), "verdicts": verdicts,
        "cost": str(cost), "earned": str(earned), "profit": str(earned - cost),
        "bidders": sum(bool(job["bids"]) for job in books["instances"]),
    }


def cost_of(prompt, completion):
    nanos = (prompt * seasons.PRICE["input"] + completion * seasons.PRICE["output"]) * 1000
    return decimal.Decimal(nanos).scaleb(-9)


def usd(amount):
    return decimal.Decimal(amount).quantize(decimal.Decimal("0.000000001"))


# === processes ===

@contextlib.contextmanager
def simulator(work):
    log = pathlib.Path(work, "simulate.log")
    with gateway.running([BINARIES / "sluice-simulate"], log, {}) as process:
        gateway.wait_for(lambda: "listening on http://" in log.read_text(), process, log)
        yield log.read_text().split("listening on http://")[1].split()[0]


@contextlib.contextmanager
def gateway_in(work):
    log = gateway.log_of(work)
    with gateway.running([BINARIES / "sluice"], log, environment(), cwd=work) as process:
        gateway.wait_for(lambda: "listening on" in log.read_text(), process, log)
        yield process


def environment():
    return {"PATH": os.environ["PATH"], "KEY": KEY, "MARKET_KEY": MARKET_KEY}


def report_of(work):
    command = [BINARIES / "sluice", "market", "report", "--by", "job", "--json"]
    done = subprocess.run(command, cwd=work, env=environment(), capture_output=True, text=True, check=True)
    return read(done.stdout)["report"]


def free_port():
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


def get(address, path):
    return read(asked(address, "GET", path))


def put(address, path, body):
    asked(address, "PUT", path, json.dumps(body))


def asked(address, method, path, body=None):
    connection = http.client.HTTPConnection(address, timeout=120)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
    if answer.status >= 300:
        raise Wrong(f"{address}{path}: {answer.status} {text}")
    return text


def read(text):
    """Amounts by their digits."""
    return json.loads(text, parse_float=decimal.Decimal)


# === results ===

def judge(rows):
    gates = []
    for rivals in SETS:
        for strategy in STRATEGIES:
            profits = profits_of(rows, rivals, strategy)
            loses = strategy == "minimum"
            holds = all((profit < 0) == loses for profit in profits)
            gates.append((f"{strategy} ends each season against {rivals} with a {'loss' if loses else 'profit'}",
                          f"{shown(min(profits))} to {shown(max(profits))}", holds))
    limited = [row for row in rows if row["limited"]]
    if limited:
        lost = max(-decimal.Decimal(row["profit"]) for row in limited)
        stopped = all("loss" in row["passed_over"] for row in limited)
        gates.append((f"a daily loss limit of {LIMIT} USD stops minimum on dear jobs, {len(limited)} seeds",
                      f"at most {shown(lost)} lost", stopped and 0 < lost <= LIMIT))
    pauses = sum(row["pauses"] for row in rows)
    gates.append(("pauses of the bidding", str(pauses), pauses == 0))
    bad = sum(count for row in rows for verdict, count in row["verdicts"].items() if verdict != "good")
    calls = sum(sum(row["verdicts"].values()) for row in rows)
    gates.append(("calls of the market without a good answer", f"{bad} of {calls}", bad == 0))
    return gates


def profits_of(rows, rivals, strategy):
    of = [row for row in rows if (row["rivals"], row["strategy"], row["limited"]) == (rivals, strategy, False)]
    return [decimal.Decimal(row["profit"]) for row in of]


def page(rows, gates):
    sections = [heading(), "## Gates", table(["", "seen", ""], [
        [what, seen, "pass" if holds else "**FAIL**"] for what, seen, holds in gates])]
    sections += ["## By strategy and rivals", EXPLAINED, table(
        ["rivals", "strategy", "seeds", "jobs", "bids", "won", "cost", "earned", "profit", "worst seed", "best seed"],
        [line(rows, rivals, strategy) for rivals in SETS for strategy in STRATEGIES])]
    sections += limit_section([row for row in rows if row["limited"]]) + ["## The gateway meanwhile", table(
        ["strategy", "seconds", "CPU seconds", "memory, MiB", "looks"], [meanwhile(rows, strategy) for strategy in STRATEGIES])]
    notes = gateway.HERE / "market-notes.md"
    if notes.exists():
        sections.append(notes.read_text().rstrip())
    sections += ["## Raw rows", "```\n" + "\n".join(json.dumps(row) for row in rows) + "\n```"]
    return "\n\n".join(sections) + "\n"


EXPLAINED = """Medians over the seeds; amounts in dollars, by the books of the stand-in: what it paid, and the tokens \
that its vendor billed times the price. In each season the gateway's `sluice market report` says the same of every \
job, to the nano-dollar, or the script fails."""


def heading():
    settings = f"SEEDS={SEEDS} JOBS={JOBS} LIMIT_SEEDS={LIMIT_SEEDS} AT_ONCE={AT_ONCE}"
    if ARRIVALS != seasons.ARRIVALS_PER_SECOND:
        settings += f" ARRIVALS={ARRIVALS}"
    if FIRST_SEED != 1:
        settings += f" FIRST_SEED={FIRST_SEED}"
    if SETS != list(seasons.RIVALS):
        settings += f' SETS="{" ".join(SETS)}"'
    if STRATEGIES != list(seasons.STRATEGIES):
        settings += f' STRATEGIES="{" ".join(STRATEGIES)}"'
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=gateway.HERE, capture_output=True, text=True).stdout.strip()
    part = [] if SEEDS >= 20 and JOBS >= 5000 and BINARIES.name == "release" else [
        "", f"**A part**: {SEEDS} seeds of {JOBS} jobs, of the 20 of 5,000 that are wanted. `tests/bench/market`, without",
        "any setting, plays all of them."]
    return "\n".join([
        "# Seasons of the market", "", "Written by `tests/bench/market`; a new run replaces it.", "", "| | |", "|---|---|",
        f"| commit | {commit} |", f"| date | {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC |",
        f"| build | {'release' if BINARIES.name == 'release' else 'debug: slower, and each look at the market takes longer'} |",
        f"| machine | {report.cpu_model()}, {os.cpu_count()} cores, {report.memory_gib()} GiB |", f"| command | {settings} tests/bench/market |", "",
        "Jobs, prices, requesters and rivals are in `tests/bench/seasons.py`, fixed before strategies were tuned. Tuning",
        "was done on seeds from 1001 on and without the set `unseen`; the table is of other seeds. Strategies have their",
        "default configuration.", *part])


def line(rows, rivals, strategy):
    of = [row for row in rows if (row["rivals"], row["strategy"], row["limited"]) == (rivals, strategy, False)]
    profits = profits_of(rows, rivals, strategy)
    counts = [f"{statistics.median(row[member] for row in of):g}" for member in ("jobs", "bids", "won")]
    amounts = [shown(statistics.median(decimal.Decimal(row[member]) for row in of)) for member in ("cost", "earned", "profit")]
    return [rivals, strategy, str(len(of)), *counts, *amounts, shown(min(profits)), shown(max(profits))]


def limit_section(limited):
    if not limited:
        return []
    rows = [[str(row["seed"]), str(row["jobs"]), str(row["bids"]), str(row["won"]), row["cost"], row["earned"],
             str(-decimal.Decimal(row["profit"]))] for row in limited]
    return [f"## The daily loss limit\n\n`minimum` on jobs of the class `long` alone, with `loss_usd_per_day = \"{LIMIT}\"`.",
            table(["seed", "jobs", "bids", "won", "cost", "earned", "lost"], rows)]


def meanwhile(rows, strategy):
    of = [row for row in rows if row["strategy"] == strategy and not row["limited"]]
    return [strategy, *(f"{statistics.median(row[member] for row in of):g}" for member in ("seconds", "gateway_cpu_s", "gateway_rss_mib", "scans"))]


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def shown(amount):
    return f"{amount:.2f}"


if __name__ == "__main__":
    sys.exit(main())
