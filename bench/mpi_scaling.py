#!/usr/bin/env python3
"""Times training steps on ranks of this machine: seconds of a step, bytes that the second rank sends, memory that each keeps and takes.

A configuration is RANKSxTHREADS[:SHARD], such as 2x1 or 4x1:gradients. Each runs as many steps; the first is left out, since buffers
are allocated in it:

    python3 bench/mpi_scaling.py target/release/simmim --data IMAGES --set train.batch_size=64 1x2 2x1 2x1:gradients
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import tempfile


def run(args, configuration, folder):
    ranks, threads, shard = re.fullmatch(r"(\d+)x(\d+)(?::(\w+))?", configuration).groups()
    out = folder / configuration.replace(":", "-")
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", ranks,
               str(pathlib.Path(args.simmim).resolve()), "pretrain", "--recipe", args.recipe, "--data", args.data, "--out", str(out),
               "--seed", "1", "--threads", threads, "--workers", str(args.workers), "--precision", args.precision,
               "--set", f"train.max_steps={args.steps}", "--set", "train.log_every_steps=1",
               "--set", f"train.shard={shard or 'none'}", *[part for edit in args.set for part in ("--set", edit)]]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode != 0:
        raise SystemExit(ran.stdout)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    seconds = [entry["seconds"] for entry in log if "loss" in entry and "seconds" in entry]
    steps = [b - a for a, b in zip(seconds, seconds[1:])]
    logs = [ran.stdout] + [path.read_text() for path in sorted((out / "ranks").glob("rank-*.log"))]
    print(f"{configuration}: {statistics.median(steps):.3f} s a step (of {len(steps)}: {min(steps):.3f} to {max(steps):.3f})", flush=True)
    for rank, text in enumerate(logs):
        for line in re.findall(r"(?:this rank keeps|this rank took|\d+ bytes sent).*", text):
            print(f"  rank {rank}: {line}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simmim")
    parser.add_argument("configurations", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="pretrain-vit-s16-224")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for configuration in args.configurations:
            run(args, configuration, pathlib.Path(folder))


if __name__ == "__main__":
    main()
