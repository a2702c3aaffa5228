#!/usr/bin/env python3
"""Compares two builds of `simmim` by `simmim bench`, run in turn in processes of their own.

    python3 bench/compare_builds.py OLD NEW --workloads vit-cifar swin-t --rounds 5

Prints, for each workload, the median time of a step with either build, the ratio of the medians (above 1: NEW is faster)
and the least and the greatest ratio of a round.
"""

import argparse
import json
import statistics
import subprocess

from compare import OF_CPUS, WORKLOADS


def step_ms(binary, recipe, batch, options):
    command = [binary, "bench", "--recipe", recipe, "--set", f"train.batch_size={batch}", "--json", "--quiet"]
    command += ["--precision", options.precision, "--steps", str(options.steps)]
    if options.threads:
        command += ["--threads", str(options.threads)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])["step_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=OF_CPUS)
    parser.add_argument("--precision", choices=["bf16", "f32"], default="f32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    for name in options.workloads:
        recipe, batch, _ = WORKLOADS[name]
        times = {"old": [], "new": []}
        for number in range(options.rounds):
            # the order alternates, so that a slow drift of the machine favors neither
            for which in ["old", "new"] if number % 2 == 0 else ["new", "old"]:
                times[which].append(step_ms(getattr(options, which), recipe, batch, options))
        old, new = (statistics.median(times[which]) for which in ["old", "new"])
        ratios = [o / n for o, n in zip(times["old"], times["new"])]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{name:10} {options.precision}  old {old:8.1f} ms  new {new:8.1f} ms  {old / new:.3f} ({spread})", flush=True)


if __name__ == "__main__":
    main()
