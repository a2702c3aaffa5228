#!/usr/bin/env python3
"""Compares `simmim bench` with PyTorch on this machine: whole training steps, and forward passes to the features.

    python3 bench/compare.py                            everything: an hour or more
    python3 bench/compare.py --workloads vit-s --rounds 2
    python3 bench/compare.py --device libtorch-cpu --ways eager sdpa     our libtorch backend beside the same libtorch
    python3 bench/compare.py --without-avx512 --precisions f32           as on a CPU that has AVX2 and not AVX-512

Builds the command, makes a virtual environment with PyTorch from PyPI beside this file (or takes the one that
SIMMIM_BENCH_VENV names), and runs ours and theirs in turn, each in a process of its own. In the first round every way of
running PyTorch is timed: attention written out, attention by `scaled_dot_product_attention`, and `torch.compile` of both.
The fastest is what the other rounds are run with. Ratios are of medians over rounds; the spread is the least and the
greatest ratio of a round. The register peak is measured before and behind every run, and a run beside which it was well
below the highest peak so far, because other work took the cores, is repeated.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TORCH = "torch==2.15.0"
# the release that our libtorch backend is linked with
LIBTORCH = "torch==2.13.0"
WAYS = ["eager", "sdpa", "compile", "compile-sdpa"]

# what keeps PyTorch and the libraries below it from AVX-512
AVX2_ONLY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}

# a run beside a peak below this share of the highest one is repeated, so many times in all
UNDISTURBED, MOST_ATTEMPTS = 0.9, 3
highest_peak = {}

# recipe, images per step, precisions
WORKLOADS = {
    "vit-s": ("pretrain-vit-s16-224", 8, ["bf16", "f32"]),
    "vit-cifar": ("pretrain-vit-cifar", 64, ["bf16", "f32"]),
    "vit-b": ("pretrain-vit-b16-224", 4, ["bf16", "f32"]),
    "swin-t": ("pretrain-swin-t-192", 8, ["bf16", "f32"]),
    "swinv2-t": ("pretrain-swinv2-t-192", 8, ["bf16", "f32"]),
    # for GPUs; --batch changes how many images
    "vit-b-gpu": ("pretrain-vit-b16-224", 256, ["bf16", "f32"]),
    "swin-b-gpu": ("pretrain-swin-b-192", 256, ["bf16", "f32"]),
    "swinv2-b-gpu": ("pretrain-swinv2-b-192", 192, ["bf16", "f32"]),
}
OF_CPUS = [name for name in WORKLOADS if not name.endswith("-gpu")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=OF_CPUS)
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "f32"], default=["bf16", "f32"])
    parser.add_argument("--what", nargs="+", choices=["step", "forward"], default=["step", "forward"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="ways of running PyTorch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a run")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="the device of ours; PyTorch's is the CPU, or the same GPU")
    parser.add_argument("--batch", type=int, help="images per step, instead of the workload's own number")
    parser.add_argument("--edits", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the recipes")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for compare.json and compare.md")
    parser.add_argument("--without-avx512", action="store_true", help="no AVX-512, neither in ours nor in PyTorch")
    parser.add_argument("--run-with", default="", help="a command to put in front of every timed one")
    options = parser.parse_args()

    options.python = python(options)
    options.simmim = build(options)
    options.torch_device = "cpu" if options.device.endswith("cpu") else options.device
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for name in options.workloads:
        recipe, batch, precisions = WORKLOADS[name]
        for precision in precisions:
            if precision in options.precisions:
                results += compare(options, name, recipe, batch, precision)
                write(options, results)
    print((options.out / "compare.md").read_text(encoding="utf-8"))


def is_libtorch(options):
    return options is not None and options.device != "cpu"


def build(options=None):
    """The release build of the command."""
    if "SIMMIM_BENCH_BINARY" in os.environ:
        return os.environ["SIMMIM_BENCH_BINARY"]
    command, environment, tree = ["cargo", "build", "--release", "-p", "simmim-cli"], dict(os.environ), ROOT
    if options is not None and options.without_avx512:
        tree = without_avx512()
    if is_libtorch(options):
        command += ["--features", "libtorch"]
        environment["PATH"] = os.pathsep.join([str(Path(options.python).parent), environment["PATH"]])
        environment["LIBTORCH_USE_PYTORCH"] = "1"
    subprocess.run(command, cwd=tree, check=True, env=environment)
    return str(tree / "target" / "release" / "simmim")


def without_avx512():
    """A copy of the tree whose kernels do not detect AVX-512."""
    copy = ROOT / "target" / "without-avx512"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    kernels = copy / "crates" / "simmim-kernels" / "src"
    edits = 0
    for path in kernels.rglob("*.rs"):
        text = path.read_text(encoding="utf-8")
        edited = text.replace('"x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", ', "")
        edited = edited.replace('is_x86_feature_detected!("avx512f")', "false")
        if edited != text:
            path.write_text(edited, encoding="utf-8")
            edits += 1
    if edits < 10 or "avx512f" in (kernels / "instructions.rs").read_text(encoding="utf-8"):
        sys.exit("the kernels detect AVX-512 in a way that this script does not know")
    return copy


def python(options):
    """An interpreter that has PyTorch: the release that we are linked with, if we are."""
    torch, own = (LIBTORCH, ROOT / "target" / "libtorch") if is_libtorch(options) else (TORCH, HERE / "venv")
    folder = Path(os.environ.get("SIMMIM_BENCH_VENV", own))
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not interpreter.exists():
        say(f"making {folder} with {torch}")
        venv.create(folder, with_pip=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", torch, "numpy"], check=True)
    return str(interpreter)


def compare(options, name, recipe, batch, precision):
    """Rounds of ours and theirs; one result for training steps and one for forward passes."""
    batch = options.batch or batch
    edits = ["--set", f"train.batch_size={batch}"]
    for edit in options.edits:
        edits += ["--set", edit]
    described = run(options, [options.simmim, "inspect", recipe, *edits, "--json"], timed=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.json"
        file.write_text(json.dumps(described["recipe"]), encoding="utf-8")
        ours, theirs = [], {what: [] for what in options.what}
        ways = {what: options.ways for what in options.what}
        for number in range(options.rounds):
            say(f"{name} {precision}: round {number + 1} of {options.rounds}, ours")
            common = ["--threads", str(options.threads), "--precision", precision, "--json", "--quiet"]
            if is_libtorch(options):
                common += ["--device", options.device]
            command = [options.simmim, "bench", "--recipe", recipe, "--steps", str(options.steps), *edits, *common]
            ours.append(undisturbed(options, command, common, "step_ms") or sys.exit("ours failed"))
            for what in options.what:
                for way in ways[what]:
                    say(f"{name} {precision}: round {number + 1} of {options.rounds}, PyTorch {way}, {what}")
                    command = [options.python, str(HERE / "torch_step.py"), "--recipe", str(file), "--precision", precision]
                    command += ["--way", way, "--what", what, "--steps", str(options.steps), "--threads", str(options.threads)]
                    command += ["--device", options.torch_device]
                    result = undisturbed(options, command, common, "ms")
                    if result is None:
                        continue
                    if result["parameters"] != described["parameters"]:
                        sys.exit(f"{recipe}: ours has {described['parameters']} parameters, theirs {result['parameters']}")
                    theirs[what].append({**result, "round": number})
                if number == 0 and theirs[what]:
                    ways[what] = [min(theirs[what], key=lambda r: r["ms"])["way"]]
    return [summary(name, recipe, batch, precision, what, ours, theirs[what]) for what in options.what if theirs[what]]


def undisturbed(options, command, common, key):
    """The fastest of some runs of a command, one if the peak beside it was high; nothing if the command fails."""
    best, precision = None, common[common.index("--precision") + 1]
    for _ in range(MOST_ATTEMPTS):
        before = run(options, [options.simmim, "bench", "--peak", *common])
        result = run(options, command, may_fail=True)
        after = run(options, [options.simmim, "bench", "--peak", *common])
        if result is None:
            return None
        peaks = [before["peak_gflops"], after["peak_gflops"]]
        result.setdefault("peak_gflops", max(peaks))
        result["peaks_beside"] = peaks
        if best is None or result[key] < best[key]:
            best = result
        highest_peak[precision] = max(highest_peak.get(precision, 0.0), *peaks)
        if min(peaks) >= UNDISTURBED * highest_peak[precision]:
            break
        say(f"other work took cores away (register peaks {peaks[0]:.0f}, {peaks[1]:.0f} GFLOP/s)")
    return best


def summary(name, recipe, batch, precision, what, ours, theirs):
    best_way = min((r for r in theirs if r["round"] == 0), key=lambda r: r["ms"])["way"]
    best = [r for r in theirs if r["way"] == best_way]
    key = "step_ms" if what == "step" else "forward_ms"
    our_ms, their_ms = [r[key] for r in ours], [r["ms"] for r in best]
    rounds = [best_round["ms"] / ours[best_round["round"]][key] for best_round in best]
    our_rss = [r["peak_rss_mb"] for r in ours if r["peak_rss_mb"]]
    their_rss = [r["peak_rss_mb"] for r in best if r["peak_rss_mb"]]
    rss = (statistics.median(our_rss), statistics.median(their_rss)) if our_rss and their_rss else (None, None)
    return {
        "workload": name,
        "recipe": recipe,
        "batch_size": batch,
        "precision": precision,
        "what": what,
        "ours_ms": statistics.median(our_ms),
        "theirs_ms": statistics.median(their_ms),
        "ratio": statistics.median(their_ms) / statistics.median(our_ms),
        "ratio_least": min(rounds),
        "ratio_most": max(rounds),
        "way": best_way,
        "gflops": statistics.median(r["gflops"] for r in ours),
        "share_of_peak": statistics.median(r["share_of_peak"] for r in ours),
        "our_peak_gflops": statistics.median(r["peak_gflops"] for r in ours),
        "their_peak_gflops": statistics.median(r["peak_gflops"] for r in best),
        "one_thread_peak_gflops": statistics.median(r["peak_gflops_one_thread"] for r in ours),
        "our_rss_mb": rss[0],
        "their_rss_mb": rss[1],
        "their_least_rss_mb": min((r["peak_rss_mb"] for r in theirs if r["peak_rss_mb"]), default=None),
        "torch": best[0]["torch"],
        "ours": ours,
        "theirs": theirs,
    }


def write(options, results):
    (options.out / "compare.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    (options.out / "compare.md").write_text(table(options, results), encoding="utf-8")


def table(options, results):
    lines = [
        f"{platform.processor() or platform.machine()}{', without AVX-512' if options.without_avx512 else ''}, "
        f"{options.threads} threads, PyTorch {results[0]['torch']}, "
        f"{options.rounds} rounds of {options.steps} steps in turn.",
        "",
        "| workload | batch | precision | what | ours, ms | PyTorch, ms | its fastest way | ratio (least to most) "
        "| share of peak | register peak beside ours, beside theirs, GFLOP/s | memory, ours and theirs, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        share = f"{r['share_of_peak']:.0%}" if r["what"] == "step" else ""
        memory = f"{r['our_rss_mb']:.0f}, {r['their_rss_mb']:.0f}" if r["our_rss_mb"] and r["what"] == "step" else ""
        lines.append(
            f"| {r['recipe']} | {r['batch_size']} | {r['precision']} | {r['what']} | {r['ours_ms']:.0f} | {r['theirs_ms']:.0f} "
            f"| {r['way']} | {r['ratio']:.2f} ({r['ratio_least']:.2f} to {r['ratio_most']:.2f}) | {share} "
            f"| {r['our_peak_gflops']:.0f}, {r['their_peak_gflops']:.0f} | {memory} |"
        )
    return "\n".join(lines) + "\n"


def run(options, command, timed=True, may_fail=False):
    """Runs a command and reads the JSON on its last line."""
    command = options.run_with.split() + command if timed else command
    # what is set for other programs must not decide how theirs computes
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE")}
    environment |= AVX2_ONLY if options.without_avx512 else {}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ran.returncode != 0:
        say(ran.stderr.strip()[-2000:])
        if may_fail:
            return None
        sys.exit(f"failed: {' '.join(command)}")
    return json.loads(ran.stdout.strip().splitlines()[-1])


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
