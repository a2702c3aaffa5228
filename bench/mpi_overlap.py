#!/usr/bin/env python3
"""Trains on two machines whose network is slow, with gradients summed beside the backward pass and not, and shows when.

The machines are two network namespaces, as in `mpi_faults.py`, whose needs this script shares. Of each step it prints when the backward
pass was over and when the sums were, on the first rank, and at the end seconds for a step and whether the weights have the same bits:

    python3 bench/mpi_overlap.py target/release/simmim --data IMAGES --mbit 200 --set encoder.width=384
"""

import argparse
import hashlib
import json
import pathlib
import re
import statistics
import tempfile

import mpi_faults as network


def slow(mbit):
    for space, cable in network.CABLE.items():
        network.inside(space, "tc", "qdisc", "add", "dev", cable, "root", "tbf", "rate", f"{mbit}mbit", "burst", "64kbit",
                       "latency", "400ms")


def run(args, folder, overlap):
    out = folder / overlap
    command = [str(pathlib.Path(args.simmim).resolve()), "pretrain", "--recipe", args.recipe, "--data", args.data, "--out", str(out),
               "--seed", "1", "--threads", str(args.threads), "--workers", "0", "--overlap", overlap, "--rank-timeline",
               "--set", f"train.max_steps={args.steps}", "--set", "train.log_every_steps=1",
               *[part for edit in args.set for part in ("--set", edit)]]
    job = network.Job(folder, command)
    code = job.process.wait()
    job.log.seek(0)
    said = job.log.read()
    if code != 0:
        raise SystemExit(said)
    spans = re.findall(r"step (\d+), sum (\d+) of (\d+) values: asked for at ([\d.]+) ms, begun at ([\d.]+) ms, done at ([\d.]+) ms", said)
    ends = re.findall(r"step (\d+): backward pass over at ([\d.]+) ms, sums at ([\d.]+) ms", said)
    print(f"\n--overlap {overlap}, the last step:")
    for step, number, values, asked, begun, done in spans:
        if int(step) == args.steps:
            print(f"  sum {number:>2} of {int(values):>9,} values: asked {float(asked):7.0f}, begun {float(begun):7.0f}, done {float(done):7.0f} ms")
    print("  step, backward pass over, sums over (ms): " + "; ".join(f"{s}, {float(b):.0f}, {float(e):.0f}" for s, b, e in ends))
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    seconds = [entry["seconds"] for entry in log if "loss" in entry and "seconds" in entry]
    steps = [b - a for a, b in zip(seconds, seconds[1:])]
    weights = hashlib.sha256((out / f"checkpoints/step-{args.steps}/model.safetensors").read_bytes()).hexdigest()
    return statistics.median(steps), weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simmim")
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="pretrain-vit-b16-224")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--mbit", type=int, default=200)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    network.lay_cable()
    try:
        with tempfile.TemporaryDirectory() as folder:
            slow(args.mbit)
            results = {overlap: run(args, pathlib.Path(folder), overlap) for overlap in ("off", "on")}
    finally:
        network.remove_cable()
    (off, weights_off), (on, weights_on) = results["off"], results["on"]
    print(f"\nmedian step: {off:.2f} s waiting for each sum, {on:.2f} s beside the pass: {off / on:.2f} times as fast")
    print("the weights have the same bits" if weights_off == weights_on else "THE WEIGHTS DIFFER")
    return int(weights_off != weights_on)


if __name__ == "__main__":
    raise SystemExit(main())
