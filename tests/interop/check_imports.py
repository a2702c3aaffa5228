"""Models of timm and transformers with random weights are loaded here, and compute what they compute there.

Their encoders are compared by `simmim.load`, their classifiers by the graph that `simmim export --format onnx` makes.
"""

import secrets
import sys
import tempfile
from pathlib import Path

import onnxruntime
import simmim
from common import ROOT, Checks
from common import simmim as command
from safetensors.torch import load_file

sys.path.insert(0, str(ROOT / "testdata" / "weights"))
import make  # noqa: E402


def main():
    checks = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        make.FOLDER, make.SEED = Path(scratch), secrets.randbelow(1 << 30)
        print("seed of the weights:", make.SEED)
        make.make()
        for folder in sorted(Path(scratch).iterdir()):
            name, expected = folder.name, load_file(folder / "expected.safetensors")
            if "tokens" in expected:
                continue  # a tokenizer, which `crates/simmim/tests/dalle.rs` compares
            pixels = expected["input"].numpy()
            # a file without config.json says neither heads nor sizes
            source = folder
            if not (folder / "config.json").exists():
                source = folder / "ours.safetensors"
                edits = ["--set=encoder.heads=4", "--set=data.image_size=16"]
                if "dinov3" in name:
                    edits = ["--set=encoder.heads=2", "--set=data.image_size=16", "--set=encoder.rotary_base=100"]
                command("import", folder / "model.safetensors", "--out", source, *edits)
            encoder = simmim.load(source, precision="f32")
            if "features" in expected:
                found = encoder.embed(pixels, features="patches")
                checks.near(f"{name}: features", found, expected["features"])
            if "class_token" in expected:
                checks.near(f"{name}: class token", encoder.embed(pixels, features="class"), expected["class_token"])
            out = folder / "onnx"
            command("export", "--from", source, "--format", "onnx", "--out", out)
            session = onnxruntime.InferenceSession(out / "model.onnx")
            kind = "logits" if "logits" in expected else "tokens"
            theirs = expected["logits" if kind == "logits" else "features"]
            checks.near(f"{name}: {kind} of the graph", session.run([kind], {"images": pixels})[0], theirs)
    checks.end()


main()
