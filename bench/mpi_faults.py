#!/usr/bin/env python3
"""Disturbs a training on two machines at random times, resumes it each time, and compares the weights at its end.

The machines are two network namespaces with addresses of their own, joined by a virtual cable; `mpirun` reaches them
through an agent. Faults: a rank is killed, a rank is stopped, the cable is cut, it is slowed to 20 Mbit/s, or it loses
packets. Wants root, Linux, Open MPI, `ip`, `tc`, `nft`, and a simmim built with `--features mpi`:

    python3 bench/mpi_faults.py target/release/simmim --data IMAGES --faults 30 --seed 1
"""

import argparse
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HOSTS = {"10.77.0.1": "simmim-a", "10.77.0.2": "simmim-b"}
CABLE = {"simmim-a": "simmim-va", "simmim-b": "simmim-vb"}
TIMEOUT_S = 4

AGENT = """#!/bin/sh
host=$1; shift
case $host in 10.77.0.1) space=simmim-a;; *) space=simmim-b;; esac
exec ip netns exec $space sh -c "$*"
"""


def sh(*command, check=True):
    return subprocess.run(command, check=check, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def inside(space, *command, check=True):
    return sh("ip", "netns", "exec", space, *command, check=check)


def lay_cable():
    remove_cable()
    for space in CABLE:
        sh("ip", "netns", "add", space)
    sh("ip", "link", "add", "simmim-va", "type", "veth", "peer", "name", "simmim-vb")
    for address, space in HOSTS.items():
        sh("ip", "link", "set", CABLE[space], "netns", space)
        inside(space, "ip", "address", "add", f"{address}/24", "dev", CABLE[space])
        inside(space, "ip", "link", "set", "lo", "up")
        inside(space, "ip", "link", "set", CABLE[space], "up")


def remove_cable():
    for space in CABLE:
        sh("ip", "netns", "del", space, check=False)


def mend_cable():
    for space, cable in CABLE.items():
        inside(space, "tc", "qdisc", "del", "dev", cable, "root", check=False)
        inside(space, "nft", "flush", "ruleset", check=False)
        inside(space, "ip", "link", "set", cable, "up")


def slow():
    inside("simmim-a", "tc", "qdisc", "add", "dev", "simmim-va", "root", "tbf", "rate", "20mbit", "burst", "32kbit",
           "latency", "400ms")


def lose():
    rules = "table ip lossy {\n chain in {\n type filter hook input priority 0\n numgen random mod 100 < 5 drop\n }\n}\n"
    subprocess.run(["ip", "netns", "exec", "simmim-b", "nft", "-f", "-"], input=rules, text=True, check=True)


class Job:
    """A run of `mpirun` with a rank in each namespace."""

    def __init__(self, folder, command):
        self.log = open(folder / "job.log", "w+")
        hosts = folder / "hosts"
        hosts.write_text("".join(f"{address} slots=1\n" for address in HOSTS))
        agent = folder / "agent"
        agent.write_text(AGENT)
        agent.chmod(0o755)
        network = "10.77.0.0/24"
        self.marker = f"simmim-faults-{os.getpid()}-{time.monotonic_ns()}"
        options = ["--allow-run-as-root", "--oversubscribe", "-n", "2", "--hostfile", str(hosts), "--map-by", "node",
                   "--mca", "plm_rsh_agent", str(agent), "--mca", "btl", "tcp,self",
                   "--mca", "btl_tcp_if_include", network, "--mca", "oob_tcp_if_include", network,
                   "-x", f"SIMMIM_MARKER={self.marker}"]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", "simmim-a", "mpirun", *options, *command], stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)

    def ranks(self):
        """Process ids of the ranks, by their number."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    variables = (entry / "environ").read_bytes().split(b"\0")
                    name = (entry / "comm").read_text().strip()
                except OSError:
                    continue
                number = [v for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
                if f"SIMMIM_MARKER={self.marker}".encode() in variables and number and name == "simmim":
                    found[int(number[0].split(b"=")[1])] = int(entry.name)
        return found

    def wait(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def said(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def end(self):
        """Ends what is left of the job."""
        for pid in self.ranks().values():
            os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def steps(out):
    folders = (out / "checkpoints").glob("step-*") if (out / "checkpoints").is_dir() else []
    return max((int(folder.name[5:]) for folder in folders), default=0)


def checksum(out):
    last = out / "checkpoints" / f"step-{steps(out)}"
    files = ["model.safetensors", "average.safetensors", "optimizer.safetensors"]
    return hashlib.sha256(b"".join((last / name).read_bytes() for name in files)).hexdigest()


def disturb(job, fault, draw):
    """Disturbs a job; returns for how long, or after what time it had ended, and what was wrong with its end."""
    since, victim = time.monotonic(), draw.randrange(2)
    if fault in ("slow", "lose"):
        slow() if fault == "slow" else lose()
        job.wait(draw.uniform(1, 4))
        mend_cable()
        return time.monotonic() - since, []
    if fault == "cut":
        inside("simmim-b", "ip", "link", "set", "simmim-vb", "down")
        # the ranks must notice by themselves; mpirun waits for the cable to be mended
        while job.ranks() and time.monotonic() - since < 60:
            time.sleep(0.1)
        took, left = time.monotonic() - since, job.ranks()
        mend_cable()
        job.wait(90)
        return took, ["cut: the ranks do not end"] if left else []
    os.kill(job.ranks()[victim], signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    code = job.wait(90)
    took, said = time.monotonic() - since, job.said()
    named = "signal 9" if fault == "kill" else f"rank {victim} has given no sign of life"
    wrong = code in (0, None) or named not in said
    return took, [f"{fault} of rank {victim}: code {code}, said:\n{said[-1500:]}"] if wrong else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--data", required=True)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="changes of the recipe, such as train.shard=gradients")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    folder = pathlib.Path(tempfile.mkdtemp())

    def command(out):
        edits = ["train.batch_size=16", "train.accumulation_steps=2", "train.clip_grad=0.05", "train.average_decay=0.9",
                 f"train.max_steps={options.steps}", "train.checkpoint_every_steps=10", "data.image_size=16",
                 "data.channels=1", "data.normalization=measured", "encoder.width=32", "encoder.depth=2",
                 "encoder.heads=2", "mask.unit_px=4", *options.set]
        return [os.path.abspath(options.program), "pretrain", "--recipe", "pretrain-vit-cifar", "--data",
                os.path.abspath(options.data), "--out", str(out), "--precision", "f32", "--threads", "1", "--workers",
                "1", "--rank-timeout", str(TIMEOUT_S), *[word for edit in edits for word in ("--set", edit)]]

    problems, counts, noticed, done, runs = [], {}, {}, 0, 0
    lay_cable()
    try:
        whole = Job(folder, command(folder / "whole"))
        if whole.wait(1200) != 0:
            sys.exit(f"the undisturbed run failed:\n{whole.said()}")
        expected = checksum(folder / "whole")
        while done < options.faults and len(problems) < 5:
            runs += 1
            out = folder / f"run-{runs}"
            while steps(out) < options.steps and len(problems) < 5:
                before = steps(out)
                job = Job(folder, command(out))
                while job.process.poll() is None and done < options.faults:
                    began, seen = time.monotonic(), steps(out)
                    # a step further than before, so that every fault meets a job that trains
                    while steps(out) == seen and job.wait(0.05) is None and time.monotonic() - began < 60:
                        pass
                    job.wait(draw.uniform(0, 2))
                    if job.process.poll() is None and len(job.ranks()) == 2:
                        fault = draw.choice(["kill", "stop", "cut", "slow", "lose"])
                        done += 1
                        counts[fault] = counts.get(fault, 0) + 1
                        took, problem = disturb(job, fault, draw)
                        noticed.setdefault(fault, []).append(took)
                        problems += problem
                        print(f"{done:3} {fault:5} at step {steps(out)} of run {runs}: code {job.process.poll()}, "
                              f"{took:.1f} s", flush=True)
                code = job.wait(1200)
                said = job.said()
                if code != 0 and "no sign of life" not in said and "signal 9" not in said and "does not end" not in said:
                    problems.append(f"the job ended with {code} and no word of why:\n{said[-1500:]}")
                job.end()
                if steps(out) < before:
                    problems.append(f"step {before} was saved and is gone")
            if len(problems) < 5 and checksum(out) != expected:
                problems.append(f"run {runs} ends with other weights")
    finally:
        remove_cable()
        shutil.rmtree(folder, ignore_errors=True)
    for fault, seconds in noticed.items():
        print(f"{fault}: {min(seconds):.1f} to {max(seconds):.1f} s")
    print(f"{done} faults in {runs} runs ({counts}); {len(problems)} problems")
    print("\n\n".join(problems))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
