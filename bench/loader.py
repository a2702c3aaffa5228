#!/usr/bin/env python3
"""Compares how fast `simmim` and torchvision load JPEG files: decoding, the pre-training crop, and normalization.

    python3 bench/loader.py --data 'photos-train-00000.tar' --size 192

The data is a tar shard or a folder; torchvision reads the files of a shard from a temporary folder, ours the shard. Ours
and theirs run in turn, each in a process of its own with the same number of threads or worker processes; ratios are of
medians over rounds, with the least and the greatest ratio of a round. Makes a virtual environment with PyTorch and
torchvision from PyPI beside this file, or takes the one that SIMMIM_BENCH_VENV names.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

from compare import build

HERE = Path(__file__).resolve().parent
PACKAGES = ["torch==2.15.0", "torchvision", "pillow", "numpy", "PyTurboJPEG<2"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of a measurement")
    parser.add_argument("--ways", nargs="+", default=["pil", "tensor", "turbojpeg"])
    options = parser.parse_args()
    simmim, python = build(), interpreter()
    with tempfile.TemporaryDirectory() as folder:
        if options.data.is_file():
            with tarfile.open(options.data) as shard:
                shard.extractall(folder, filter="data")
        files = folder if options.data.is_file() else options.data
        speeds = {way: [] for way in ["simmim", *options.ways]}
        for number in range(options.rounds):
            ours = [simmim, "bench", "--data", options.data, "--recipe", "pretrain-vit-photos-192", "--json", "--quiet"]
            edits = [f"data.image_size={options.size}", f"train.batch_size={options.batch}"]
            ours += ["--threads", options.threads, "--steps", options.seconds]
            ours += [part for edit in edits for part in ("--set", edit)]
            speeds["simmim"].append(json.loads(run(ours))["loader_images_per_second"])
            for way in list(options.ways):
                theirs = [python, HERE / "torch_loader.py", "--folder", files, "--way", way, "--size", options.size]
                theirs += ["--batch", options.batch, "--workers", options.threads, "--rounds", options.seconds]
                speed = run(theirs, may_fail=True)
                if speed is None:
                    options.ways.remove(way)
                    del speeds[way]
                else:
                    speeds[way].append(float(speed))
            print(f"round {number + 1}: " + ", ".join(f"{way} {of[-1]:.0f}" for way, of in speeds.items()), flush=True)
    ours = speeds.pop("simmim")
    print(f"| loader, {options.size} px, {options.threads} threads | images/s | simmim is faster by |\n| --- | --- | --- |")
    print(f"| simmim | {statistics.median(ours):.0f} | |")
    for way, theirs in speeds.items():
        ratios = [a / b for a, b in zip(ours, theirs)]
        ratio = statistics.median(ours) / statistics.median(theirs)
        print(f"| {way} | {statistics.median(theirs):.0f} | {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")


def interpreter():
    folder = Path(os.environ.get("SIMMIM_BENCH_VENV", HERE / "venv"))
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", "import torchvision"], capture_output=True).returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return str(python)


def run(command, may_fail=False):
    """The output of a command."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr.strip().splitlines()[-1], file=sys.stderr)
        if may_fail:
            print(f"left out: {' '.join(str(part) for part in command)}", file=sys.stderr)
            return None
        sys.exit(1)
    return done.stdout


if __name__ == "__main__":
    main()
