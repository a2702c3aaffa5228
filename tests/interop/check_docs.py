"""Runs the lines of docs/WEIGHTS.md that say how to get from a run to other programs and back, in their order."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, SWIN, SWIN_PRETRAINING, trained

HEADING = "## From a run to other programs, and back"


def blocks():
    text = (ROOT / "docs" / "WEIGHTS.md").read_text()
    section = text.split(HEADING)[1].split("\n## ")[0]
    return re.findall(r"^```(sh|python)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        run, _ = trained(scratch, "pretrain-swin-t-192", SWIN_PRETRAINING)
        tuned, _ = trained(scratch, "finetune-swin-t-192", SWIN + ["data.image_size=32"], command="finetune", start=run)
        for folder, name in ((run, "run"), (tuned, "tuned"), (scratch / "data", "images")):
            folder.rename(scratch / name)
        os.chdir(scratch)
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        names = {}
        for language, code in blocks():
            print("\n".join(f"    {line}" for line in code.splitlines()), flush=True)
            if language == "sh":
                subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
            else:
                exec(compile(code, "docs/WEIGHTS.md", "exec"), names)


main()
