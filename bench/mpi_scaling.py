#!/usr/bin/env python3
"""Times training steps on ranks of this machine: seconds of a step, bytes that the second rank sends, memory that each keeps and takes.

A configuration is RANKSxTHREADS[:SHARD], such as 2x1 or 4x1:gradients. Each runs as many steps; the first is left out, since buffers
are allocated in it. With --rounds they run in turn so many times. 2*1x1 are two runs at once that know nothing of each other, each with
its half of the batch: what two ranks compute, without what they exchange.

    python3 bench/mpi_scaling.py target/release/simmim --data IMAGES --batch 64 1x2 2x1 2x1:gradients 2*1x1
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import tempfile


def start(args, ranks, threads, shard, batch, out):
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks),
               str(pathlib.Path(args.simmim).resolve()), "pretrain", "--recipe", args.recipe, "--data", args.data, "--out", str(out),
               "--seed", "1", "--threads", str(threads), "--workers", str(args.workers), "--precision", args.precision,
               "--set", f"train.max_steps={args.steps}", "--set", "train.log_every_steps=1", "--set", f"train.batch_size={batch}",
               "--set", f"train.shard={shard or 'none'}", *[part for edit in args.set for part in ("--set", edit)]]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(args, configuration, folder):
    """The seconds of each step but the first, and what the ranks say at their end."""
    copies, ranks, threads, shard = re.fullmatch(r"(?:(\d+)\*)?(\d+)x(\d+)(?::(\w+))?", configuration).groups()
    copies = int(copies or 1)
    outs = [pathlib.Path(tempfile.mkdtemp(dir=folder)) / "run" for _ in range(copies)]
    running = [start(args, ranks, threads, shard, args.batch // copies, out) for out in outs]
    ended = [process.communicate()[0] for process in running]
    steps, said = [], []
    for process, text, out in zip(running, ended, outs):
        if process.returncode != 0:
            raise SystemExit(text)
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        seconds = [entry["seconds"] for entry in log if "loss" in entry and "seconds" in entry]
        steps += [b - a for a, b in zip(seconds, seconds[1:])]
        logs = [text] + [path.read_text() for path in sorted((out / "ranks").glob("rank-*.log"))]
        for rank, text in enumerate(logs):
            said += [f"rank {rank}: {line}" for line in re.findall(r"(?:this rank keeps|this rank took|\d+ bytes sent).*", text)]
    return steps, said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simmim")
    parser.add_argument("configurations", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="pretrain-vit-s16-224")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    steps, said = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            for configuration in args.configurations:
                seconds, said[configuration] = run(args, configuration, folder)
                steps.setdefault(configuration, []).extend(seconds)
                print(f"round {turn + 1}, {configuration}: {statistics.median(seconds):.3f} s a step", flush=True)
    first = statistics.median(steps[args.configurations[0]])
    for configuration, seconds in steps.items():
        median = statistics.median(seconds)
        spread = f"{len(seconds)} steps of {min(seconds):.3f} to {max(seconds):.3f}"
        print(f"{configuration}: {median:.3f} s a step ({spread}), {first / median:.3f} times as fast as {args.configurations[0]}")
        for line in said[configuration]:
            print(f"  {line}")


if __name__ == "__main__":
    main()
