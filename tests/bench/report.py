#!/usr/bin/env python3
"""Writes RESULTS.md from what the measurements left in a folder; says which gates hold, and fails if one does not.

report.py FOLDER RESULTS    FOLDER holds micro.jsonl, gate.jsonl, limits.jsonl, keys.jsonl, long.jsonl, streams.jsonl, commands.txt
                            and, if rivals were run, rivals.txt
"""
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

# What is asked of the gateway at 32 connections; the gates on single calls come with their rows.
RATIO_MIN = 0.6
# The same with a key, budgets, rates and the ledger on every request.
LIMITS_RATIO_MIN = 0.55
# CPU for each request with 100,000 keys and 10,000 live accounts, to that with ten.
KEYS_RATIO_MAX = 1.15
# Under full load for minutes: memory at the end to that after the first half minute, and the disk beyond `retention`:
# two segments of the journal, and what the database's own log has in it.
MEMORY_RATIO_MAX = 1.2
DISK_BEYOND_KIB_MAX = 96 * 1024
# Added to the first content of a stream, median.
FIRST_CONTENT_US_MAX = 500
# From a client's leaving to the vendor's noticing, worst.
LEAVING_MS_MAX = 100


def main():
    folder, results = map(pathlib.Path, sys.argv[1:])
    names = ("micro.jsonl", "gate.jsonl", "limits.jsonl", "keys.jsonl", "long.jsonl", "streams.jsonl")
    micro, gate, limits, keys, long, streams = (rows(folder / name) for name in names)
    gates = (micro_gates(micro) + gateway_gates(gate) + limits_gates(limits) + keys_gates(keys) + long_gates(long)
             + stream_gates(streams))
    sections = [heading(folder), gate_table(gates), micro_table(micro), load_table(gate),
                load_table(limits, "The gateway with a key, three budgets, rates and the ledger"), keys_table(keys),
                long_table(long), stream_table(streams),
                count_table(gate)]
    if (folder / "rivals.txt").exists():
        sections.append(rivals(folder))
    sections += [commands(folder), raw(folder)]
    results.write_text("\n\n".join(sections) + "\n")
    for what, wanted, seen, holds in gates:
        print(f"{'pass' if holds else 'FAIL'}  {what}: {seen} (wanted {wanted})")
    return 0 if all(gate[-1] for gate in gates) else 1


def micro_gates(micro):
    def gate(row):
        median = statistics.median(row["wall_ns"])
        return row["name"], f"at most {row['gate_ns'] / 1e3:g} µs", f"{median / 1e3:.2f} µs", median <= row["gate_ns"]

    return [gate(row) for row in micro if row["gate_ns"]]


def gateway_gates(gate):
    ratio = median(gate, "sluice", 32, "rps") / median(gate, "nginx", 32, "rps")
    loads = of_kind(gate, "load")
    bad = sum(row["bad_status"] + row["socket_errors"] for row in loads)
    counted = of_kind(gate, "counted")[0]
    counts = [counted[key] for key in ("rank", "hits", "requests")]
    apart = [(difference(row), row["connections"]) for row in loads if row["name"] == "sluice"]
    return [
        ("throughput at 32 connections", f"at least {RATIO_MIN} of nginx", f"{ratio:.3f}", ratio >= RATIO_MIN),
        ("answers that are not 2xx or did not come", "0", str(bad), bad == 0),
        ("rank calls, upstream hits, wrk's count; all answered", "equal", ", ".join(map(str, counts)),
         len(set(counts)) == 1),
        ("the same in the timed rounds: largest difference", "at most the connections that wrk cut off",
         str(max(apart)[0]), all(most <= connections for most, connections in apart)),
    ]


def limits_gates(limits):
    ratio = median(limits, "sluice", 32, "rps") / median(limits, "nginx", 32, "rps")
    bad = sum(row["bad_status"] + row["socket_errors"] for row in of_kind(limits, "load"))
    return [("throughput with keys, budgets, rates and ledger", f"at least {LIMITS_RATIO_MIN} of nginx",
             f"{ratio:.3f}", ratio >= LIMITS_RATIO_MIN and bad == 0)]


def keys_gates(keys):
    cpu = {name: statistics.median(row["gateway_cpu_us"] for row in keys if row["name"] == name) for name in ("few", "many")}
    ratio = cpu["many"] / cpu["few"]
    return [("CPU per request with 100,000 keys and 10,000 live accounts, to that with ten", f"at most {KEYS_RATIO_MAX}",
             f"{ratio:.3f}", ratio <= KEYS_RATIO_MAX)]


def long_gates(long):
    memory = statistics.median(row["rss_kib"] for row in long[-3:]) / statistics.median(row["rss_kib"] for row in long[:3])
    beyond = max(row["disk_kib"] for row in long) - long[0]["retention_kib"]
    trouble = sum(row["trouble"] + row["bad_status"] for row in long)
    over = f"over {long[-1]['second']} s of full load"
    return [
        (f"memory {over}, end to beginning", f"at most {MEMORY_RATIO_MAX}", f"{memory:.2f}", memory <= MEMORY_RATIO_MAX),
        (f"disk {over}, beyond `retention`", f"at most {DISK_BEYOND_KIB_MAX // 1024} MiB", f"{beyond // 1024} MiB",
         beyond <= DISK_BEYOND_KIB_MAX),
        (f"answers that are not 2xx and troubles of the ledger {over}", "0", f"{trouble:g}", trouble == 0),
    ]


def keys_table(keys):
    lines = [f"| {row['name']} | {row['round']} | {row['gateway_cpu_us']} | {row['accounts']:.0f} | {row['rss_kib'] // 1024} |"
             for row in keys]
    return "\n".join(["## Ten keys and 100,000", "", "Of the many, 5,000 are used one after the other, each with two accounts of its own;"
                      " `tests/bench/ledger.py`.", "", "| | round | CPU per request, µs | accounts in memory | memory, MiB |",
                      "|---|---|---|---|---|", *lines])


def long_table(long):
    lines = [f"| {row['second']} | {row['rps']} | {row['rss_kib'] // 1024} | {row['disk_kib'] // 1024} | {row['waiting']:.0f} |"
             for row in long]
    return "\n".join(["## Full load for minutes", "", f"`[ledger] retention` of {long[0]['retention_kib'] // 1024} MiB, 32 connections.",
                      "", "| second | requests/s | memory, MiB | disk, MiB | rows that wait |", "|---|---|---|---|---|", *lines])


def stream_gates(streams):
    first = {(row["adapter"], row["way"]): statistics.median(row["us"]) for row in of_kind(streams, "first content")}
    gates = []
    for adapter in sorted({adapter for adapter, _way in first}):
        later = first[adapter, "gateway"] - first[adapter, "direct"]
        gates.append((f"first content later than direct: {adapter}", f"at most {FIRST_CONTENT_US_MAX} µs",
                      f"{later:.0f} µs", later <= FIRST_CONTENT_US_MAX))
    worst = max(max(row["ms"]) for row in of_kind(streams, "leaving") if row["way"] == "gateway")
    gates.append(("a client leaves a silent vendor: noticed there, worst", f"within {LEAVING_MS_MAX} ms",
                  f"{worst:.1f} ms", worst <= LEAVING_MS_MAX))
    return gates


def difference(row):
    counts = [row["rank"], row["hits"], row["requests"]]
    return max(counts) - min(counts)


def heading(folder):
    commit = output("git", "rev-parse", "HEAD")
    changed = output("git", "status", "--porcelain", "--", ":!tests/bench/RESULTS.md")
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = [
        ("commit", commit + (", with changes that are not committed" if changed else "")),
        ("date", date),
        ("machine", f"{cpu_model()}, {os.cpu_count()} cores, {memory_gib()} GiB; Linux {platform.release()}"),
        ("load before", (folder / "load.txt").read_text().strip() + " (1, 5, 15 minutes)"),
        ("toolchain", output("rustc", "--version")),
    ]
    lines = [f"| {key} | {value} |" for key, value in facts]
    return "\n".join(["# Benchmark results", "", "Written by `tests/bench/run`; a new run replaces it.", "", "| | |",
                      "|---|---|", *lines])


def gate_table(gates):
    lines = [f"| {what} | {wanted} | {seen} | {'pass' if holds else '**FAIL**'} |" for what, wanted, seen, holds in gates]
    return "\n".join(["## Gates", "", "| | wanted | seen | |", "|---|---|---|---|", *lines])


def micro_table(micro):
    def line(row):
        wall = sorted(row["wall_ns"])
        figures = [statistics.median(wall), wall[(len(wall) - 1) * 9 // 10], wall[0], statistics.median(row["cpu_ns"])]
        return f"| {row['name']} | " + " | ".join(f"{figure / 1e3:.3f}" for figure in figures) + " |"

    text = ("Microseconds per operation, over the means of interleaved batches; CPU is the calling thread's.\n"
            "*Fresh adapter* is store, limits, instance, first call (`configure`), drop; *fresh plan* is that and `plan` with its\n"
            "check: what a request pays whose plan cannot be reused. An adapter is never warm\n"
            "(each request gets its own instance), so *warm plan* is what a reused plan costs: the body's scan and the splice;\n"
            "the gateway's look-up by shape is not in it.")
    return "\n".join(["## Calls", "", text, "", "| | median | p90 | least | CPU, median |", "|---|---|---|---|---|",
                      *map(line, micro)])


def load_table(gate, title="The gateway and nginx"):
    lines = []
    for connections in (32, 1):
        for name in ("nginx", "sluice"):
            rps, p50, p99 = (median(gate, name, connections, key) for key in ("rps", "p50_us", "p99_us"))
            ratio = rps / median(gate, "nginx", connections, "rps")
            cpu = f"{median(gate, name, connections, 'gateway_cpu_us'):.1f}" if name == "sluice" else ""
            lines.append(f"| {name} | {connections} | {rps:.0f} | {ratio:.3f} | {p50:.0f} | {p99:.0f} | {cpu} |")
    rounds = [f"{ours['rps'] / theirs['rps']:.3f}" for ours, theirs in zip(
        *(loads(gate, name, 32) for name in ("sluice", "nginx")))]
    memory = ", ".join(f"{row['rss_kib'] / 1024:.0f} MiB {row['when']}" for row in of_kind(gate, "memory"))
    return "\n".join([
        f"## {title}", "", "Medians of interleaved rounds; `tests/bench/{nginx.conf,sluice.toml,limits.toml,load.lua}`.", "",
        "| | connections | requests/s | of nginx | p50, µs | p99, µs | gateway's CPU per request, µs |",
        "|---|---|---|---|---|---|---|", *lines, "",
        f"Ratio of each round at 32 connections: {', '.join(rounds)}. "
        f"The gateway's memory: {memory}. Lines in its log: {of_kind(gate, 'log')[0]['lines']}."])


def stream_table(streams):
    def line(row, figures):
        figures = sorted(figures)
        p90 = figures[(len(figures) - 1) * 9 // 10]
        about = row.get("adapter") or row["silence"]
        return (f"| {row['kind']}, {about} | {row['way']} | {len(figures)} | {statistics.median(figures):.1f} | "
                f"{p90:.1f} | {figures[-1]:.1f} |")

    lines = [line(row, row["us"]) for row in of_kind(streams, "first content")]
    lines += [line(row, row["ms"]) for row in of_kind(streams, "leaving")]
    text = ("First content in µs, from sending to the first bytes with content, ways in turn, one connection each; `anthropic` is\n"
            "mapped: direct in Anthropic's wire, through the gateway in OpenAI's. Leaving in ms, until the silent vendor notices;\n"
            "the stand-in's clock has steps of 1 ms, of which the whole is counted.")
    return "\n".join(["## Streams", "", text, "", "| | way | times | median | p90 | worst |", "|---|---|---|---|---|---|",
                      *lines])


def count_table(gate):
    ours = of_kind(gate, "counted") + [row for row in of_kind(gate, "load") if row["name"] == "sluice"]
    lines = [f"| {row.get('round', 'all answered')} | {row.get('connections', 32)} | {row['rank']} | {row['hits']} | "
             f"{row['requests']} | {row['plan']} | {row['rank_us']} |" for row in ours]
    text = ("`rank` and `plan` calls by `/admin/v1/plugins`, requests that the upstream received, requests that wrk saw answered.\n"
            "A timed round ends with requests in flight, which wrk does not count: at most one for each connection.\n"
            "In the first row wrk sends a fixed number and waits for all.")
    return "\n".join(["## Counts", "", text, "", "| round | connections | rank | hits | wrk | plan | mean of rank, µs |",
                      "|---|---|---|---|---|---|---|", *lines])


def rivals(folder):
    return "\n".join(["## Rivals", "", "As printed by `../shared/bench/rivals.sh`.", "",
                      block((folder / "rivals.txt").read_text())])


def commands(folder):
    return "\n".join(["## Commands", "", block((folder / "commands.txt").read_text())])


def raw(folder):
    return "\n".join(["## Raw rows", "", block((folder / "gate.jsonl").read_text()), "",
                      block((folder / "limits.jsonl").read_text()), "",
                      block((folder / "micro.jsonl").read_text())])


def block(text):
    return f"```\n{text.rstrip()}\n```"


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def of_kind(gate, kind):
    return [row for row in gate if row["kind"] == kind]


def loads(gate, name, connections):
    return [row for row in of_kind(gate, "load") if (row["name"], row["connections"]) == (name, connections)]


def median(gate, name, connections, key):
    return statistics.median(row[key] for row in loads(gate, name, connections))


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_gib():
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
