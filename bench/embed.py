#!/usr/bin/env python3
"""Times features of a collection: `simmim embed` beside PyTorch with timm, in turn, with the same random weights.

    python3 bench/embed.py --data cifar10-*.tar --images 60000

`--data` is tar shards of small JPEG files, which are unpacked into one folder that both read. The model is timm's ViT-Ti with
patches of 4 pixels for images of 32; the features are the mean of the patch tokens behind the last norm. PyTorch loads with
`DataLoader` in as many processes as there are cores. Its ways (f32 or bf16, eager or compiled) are timed on a few images first,
and the fastest of each precision is what is compared. Memory is the greatest sum of the proportional share (PSS) of all
processes. Needs torch, torchvision, timm, numpy and safetensors in the interpreter that SIMMIM_BENCH_PYTHON names.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WAYS = {"f32": ["eager", "compile"], "bf16": ["eager", "autocast", "compile"]}
FEW = 4096


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="tar shards of JPEG files of 32 × 32 pixels")
    parser.add_argument("--images", type=int, default=60000)
    parser.add_argument("--precisions", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--ways", nargs="+", choices=["eager", "autocast", "compile"], default=["eager", "autocast", "compile"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--run-with", default="", help="a command to put in front of every timed one")
    parser.add_argument("--torch", choices=["eager", "autocast", "compile"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help="folder for images and results; a temporary one by default")
    options = parser.parse_args()
    if options.torch:
        return torch_features(options)

    python = os.environ.get("SIMMIM_BENCH_PYTHON", sys.executable)
    binary = os.environ.get("SIMMIM_BENCH_BINARY")
    if not binary:
        subprocess.run(["cargo", "build", "--release", "-p", "simmim-cli"], cwd=ROOT, check=True)
        binary = str(ROOT / "target" / "release" / "simmim")
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        unpack(options, work)
        subprocess.run([python, "-c", MODEL, str(work / "model")], check=True)
        for precision in options.precisions:
            theirs = lambda way, images: [
                python, __file__, "--torch", way, "--precisions", precision, "--threads", str(options.threads), "--data", "-",
                "--images", str(images), "--work", str(work),
            ]
            few = {way: timed(options, theirs(way, FEW))[0] for way in WAYS[precision] if way in options.ways}
            way = min(few, key=few.get)
            say(f"{precision}: PyTorch on {FEW} images " + ", ".join(f"{w} {s:.1f} s" for w, s in few.items()))
            out = work / f"ours-{precision}.npy"
            ours = [binary, "embed", "--from", str(work / "model"), "--set", "encoder.heads=3", "--data", str(work / "images")]
            ours += ["--out", str(out), "--precision", precision, "--threads", str(options.threads), "--quiet"]
            rounds = [(timed(options, ours), timed(options, theirs(way, options.images))) for _ in range(options.rounds)]
            show(precision, way, options.images, rounds, compared(python, out, work / f"theirs-{precision}.npy"))


def unpack(options, work):
    folder, count = work / "images", 0
    folder.mkdir(parents=True, exist_ok=True)
    shards = sorted(path for pattern in options.data for path in glob.glob(pattern))
    for number, shard in enumerate(shards):
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.name.endswith(".jpg") and count < options.images:
                    (folder / f"{number}-{Path(member.name).name}").write_bytes(archive.extractfile(member).read())
                    count += 1
    if count < options.images:
        sys.exit(f"there are {count} images only")


MODEL = """
import json, sys, timm, torch
from pathlib import Path
from safetensors.torch import save_file
torch.manual_seed(0)
model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=0)
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
"""


def torch_features(options):
    """Features by PyTorch: what a short script does."""
    import numpy
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from torchvision import transforms

    class Images(torch.utils.data.Dataset):
        def __init__(self, folder, most):
            self.paths = sorted(str(path) for path in Path(folder).iterdir())[:most]
            normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
            self.transform = transforms.Compose([transforms.ToTensor(), normalize])

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, index):
            return self.transform(Image.open(self.paths[index]).convert("RGB"))

    precision = options.precisions[0]
    torch.set_num_threads(options.threads)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=0).eval()
    model.load_state_dict(load_file(options.work / "model" / "model.safetensors"))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=options.torch == "autocast")
    if options.torch != "autocast":
        model = model.to(dtype)
    if options.torch == "compile":
        model.forward_features = torch.compile(model.forward_features)
    loader = torch.utils.data.DataLoader(Images(options.work / "images", options.images), 64, num_workers=options.threads)
    rows = []
    with torch.inference_mode(), autocast:
        for batch in loader:
            tokens = model.forward_features(batch if options.torch == "autocast" else batch.to(dtype))
            rows.append(tokens[:, 1:].float().mean(1).numpy())
    numpy.save(options.work / f"theirs-{precision}.npy", numpy.concatenate(rows))


def timed(options, command):
    """Seconds, and the greatest memory of all processes in MB."""
    most, done = [0.0], threading.Event()
    started = time.perf_counter()
    process = subprocess.Popen(options.run_with.split() + command)

    def watch():
        while not done.wait(0.5):
            most[0] = max(most[0], sum(memory_mb(number) for number in tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    if code != 0:
        sys.exit(f"failed: {' '.join(command)}")
    return seconds, most[0]


def tree(process):
    found = [process]
    for number in found:
        try:
            for thread in os.listdir(f"/proc/{number}/task"):
                found += [int(child) for child in Path(f"/proc/{number}/task/{thread}/children").read_text().split()]
        except OSError:
            pass
    return found


def memory_mb(process):
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except OSError:
        return 0.0


COMPARED = """
import json, numpy, sys
a, b = (numpy.load(path).astype(float) for path in sys.argv[1:])
assert a.shape == b.shape, (a.shape, b.shape)
cosines = (a * b).sum(1) / numpy.sqrt((a * a).sum(1) * (b * b).sum(1))
print(json.dumps({"largest": abs(a - b).max() / abs(b).max(), "least_cosine": cosines.min()}))
"""


def compared(python, ours, theirs):
    return json.loads(subprocess.run([python, "-c", COMPARED, ours, theirs], check=True, capture_output=True, text=True).stdout)


def show(precision, way, images, rounds, difference):
    ours, theirs = ([r[side] for r in rounds] for side in (0, 1))
    seconds = lambda runs: statistics.median(run[0] for run in runs)
    memory = lambda runs: max(run[1] for run in runs)
    ratios = [their[0] / our[0] for our, their in rounds]
    print(
        f"{precision}, {images} images: simmim {seconds(ours):.1f} s, {memory(ours):.0f} MB; PyTorch ({way}) {seconds(theirs):.1f} s, "
        f"{memory(theirs):.0f} MB; {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times; largest difference "
        f"{difference['largest']:.1e} of the largest feature, least cosine {difference['least_cosine']:.6f}",
        flush=True,
    )


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
