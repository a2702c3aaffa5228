"""Checks that archives in S3 are read as local ones are, against moto's imitation of S3.

    python bench/check_s3.py SIMMIM        with `moto[server]` and `boto3` from PyPI; SIMMIM is the command
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

IMAGES = Path(__file__).resolve().parent.parent / "testdata" / "images"
SECRET = "not-to-be-recorded"
REMOTE = "s3://bucket/some folder"
TRAINING = ["train.batch_size=8", "train.max_steps=3", "train.log_every_steps=1", "train.epochs=1000"]


def main():
    command = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        archives(folder)
        server = ThreadedMotoServer(port=0)
        server.start()
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET}
        environment = {**os.environ, **keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": "us-east-1"}
        os.environ.update(keys)
        s3 = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1")
        s3.create_bucket(Bucket="bucket")
        names = sorted(path.name for path in folder.iterdir())
        for name in names:
            s3.upload_file(str(folder / name), "bucket", f"some folder/{name}")
        for name in [*names, "x-{0..1}.tar"]:
            check(name, *[seen(run(command, environment, "inspect", "--json", f"{at}/{name}"), at) for at in (folder, REMOTE)])
        for at, out in [(folder, "local"), (REMOTE, "remote")]:
            edits = [part for edit in TRAINING for part in ("--set", edit)]
            arguments = ["--recipe", "pretrain-vit-cifar", "--data", f"{at}/x-{{0..1}}.tar", "--out", folder / out]
            run(command, environment, "pretrain", "--json", *arguments, *edits)
        losses = [
            [json.loads(line).get("loss") for line in (folder / out / "log.jsonl").read_text().splitlines()]
            for out in ("local", "remote")
        ]
        check("losses of three steps", *losses)
        files = [path for path in (folder / "remote").rglob("*") if path.is_file()]
        check("files with the secret", [path for path in files if SECRET.encode() in path.read_bytes()], [])
        for address, expected in [("s3://bucket/none.tar", "(404)"), ("s3://nobody/x.tar", "(404)")]:
            failed = subprocess.run([command, "inspect", address], env=environment, capture_output=True, text=True)
            check(address, (failed.returncode, expected in failed.stderr), (2, True))
        server.stop()


def archives(folder):
    """Writes two tar files and a zip file of photographs."""
    photos = sorted(path for path in IMAGES.iterdir() if path.suffix in (".jpg", ".png"))
    for number in range(2):
        with tarfile.open(folder / f"x-{number}.tar", "w") as tar:
            for copy in range(8):
                data = photos[copy % len(photos)].read_bytes()
                member = tarfile.TarInfo(f"{number}{copy:02}{photos[copy % len(photos)].suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for photo in photos:
            archive.write(photo, photo.name)


def run(command, environment, *arguments):
    done = subprocess.run([command, *map(str, arguments)], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{arguments}: exit code {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def seen(result, at):
    """What `inspect` says, apart from where the images lie."""
    result["suggestion"].pop("command")
    return json.loads(json.dumps(result).replace(str(at), "AT"))


def check(what, first, second):
    print(f"{what}: {'the same' if first == second else 'NOT THE SAME'}")
    if first != second:
        sys.exit(f"{first}\n{second}")


if __name__ == "__main__":
    main()
