#!/usr/bin/env python3
"""Whole commands of Gantry beside docker, ctr and podman, in one run on one machine.

    sudo tests/bench/suite_bench.py [--rounds N] [--only run,bridge,parallel,exec,memory,pull] [--bin DIR]

Runs in mount and network namespaces of its own, with daemons, state and a registry of its own below a
temporary directory, and removes them again. The variants of a benchmark take turns within each round, so
that a busy moment hits all of them; medians are printed, and the ratio of each peer to Gantry (how many times
Gantry is faster). Figures of record go to docs/performance.md by hand, with the machine they come from.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PULL_LAYERS, PULL_LAYER_MEGABYTES = 6, 50
IDLE_SECONDS = 2  # What a shim needs for a start goes back a moment after it.
DEVNULL = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)


def spawn(argv, environment=None):
    """Starts a program by posix_spawn (a fork of Python would be most of a short command's time)."""
    path = shutil.which(argv[0]) or argv[0]
    actions = [(os.POSIX_SPAWN_DUP2, DEVNULL, 0), (os.POSIX_SPAWN_DUP2, DEVNULL, 1)]
    return os.posix_spawn(path, argv, {**os.environ, **(environment or {})}, file_actions=actions)


def timed(argv, environment=None):
    """Milliseconds a command takes; it must succeed."""
    began = time.perf_counter()
    _, status = os.waitpid(spawn(argv, environment), 0)
    took = (time.perf_counter() - began) * 1000
    if status != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit {os.waitstatus_to_exitcode(status)}")
    return took


def run(argv, environment=None):
    result = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit {result.returncode}: {result.stderr.strip()}")
    return result.stdout


def wait_for(path, process, log):
    for _ in range(600):
        if path.exists():
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"{process.args[0]} does not serve: {log.read_text()[-600:]}")


class Peers:
    """The daemons of one run; ends them in reverse order."""

    def __init__(self, folder, bin_folder):
        self.folder = folder
        self.bin = bin_folder
        self.started = []
        self.gantry_env = {"GANTRY_HOST": f"unix://{folder}/g/run/gantry.sock"}

    def start(self, name, argv, ready, environment=None):
        log = self.folder / f"{name}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       env={**os.environ, **(environment or {})})
        self.started.append(process)
        wait_for(ready, process, log)
        return process

    def start_registry(self):
        config = self.folder / "registry.yml"
        config.write_text("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: "
                          f"{self.folder}/registry}}}}\nhttp: {{addr: 127.0.0.1:5000}}\n")
        process = self.start("registry", ["docker-registry", "serve", str(config)], config)
        for _ in range(200):
            if subprocess.run(["curl", "-s", "-o", "/dev/null", "http://127.0.0.1:5000/v2/"]).returncode == 0:
                return process
            time.sleep(0.05)
        raise RuntimeError("the registry does not answer")

    def push(self, name, *options):
        layout = self.folder / f"layout-{name}"
        run([str(SOURCE / "deploy/make-image"), str(layout), "latest", *options])
        run(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}:latest",
             f"docker://127.0.0.1:5000/{name}:latest"])
        shutil.rmtree(layout)

    def start_containerd(self):
        config = self.folder / "containerd.toml"
        config.write_text(f'version = 2\nroot = "{self.folder}/c/root"\nstate = "{self.folder}/c/state"\n'
                          f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n'
                          f'address = "{self.folder}/c.sock"\n')
        self.start("containerd", ["containerd", "-c", str(config)], self.folder / "c.sock")

    def start_docker(self):
        self.start("dockerd", ["dockerd", "--data-root", f"{self.folder}/d/root", "--exec-root",
                               f"{self.folder}/d/exec", "--pidfile", f"{self.folder}/d.pid", "-H",
                               f"unix://{self.folder}/d.sock", "--containerd", f"{self.folder}/c.sock"],
                   self.folder / "d.sock")

    def start_gantry(self):
        for name in ("snapshotter", "metadata", "image", "task", "engine", "gateway"):
            socket = "gantry" if name == "gateway" else name
            self.start(f"gantry-{name}", [str(self.bin / f"gantry-{name}"), "--root", str(self.folder / "g")],
                       self.folder / f"g/run/{socket}.sock",
                       {"PATH": f"{self.bin}:{os.environ['PATH']}"})

    def gantry(self, *words):
        return [str(self.bin / "gantryctl"), *words]

    def docker(self, *words):
        return ["/usr/bin/docker", "-H", f"unix://{self.folder}/d.sock", *words]

    def ctr(self, *words):
        return ["ctr", "-a", f"{self.folder}/c.sock", *words]

    def podman(self, *words):
        return ["podman", "--root", f"{self.folder}/p/root", "--runroot", f"{self.folder}/p/run", "--runtime", "runc",
                "--cgroup-manager", "cgroupfs", "--events-backend", "none", *words]

    def stop(self):
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def report(title, samples, results):
    """Prints medians and ratios of one benchmark: {variant: [milliseconds]}, Gantry's first."""
    medians = {name: statistics.median(values) for name, values in samples.items() if values}
    ours = next(iter(medians.values()))
    print(f"\n{title}")
    for name, value in medians.items():
        ratio = "" if value is ours else f"   {value / ours:6.1f}x gantry"
        low, high = min(samples[name]), max(samples[name])
        print(f"  {name:24} {value:9.1f} ms  (min {low:.1f}, max {high:.1f}, n {len(samples[name])}){ratio}")
    results[title] = medians
    sys.stdout.flush()


def take_turns(variants, rounds):
    """Each variant once a round, after one warming round: {name: (argv maker, environment)}."""
    samples = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, (make, environment) in variants.items():
            took = timed(make(number), environment)
            if number > 0:
                samples[name].append(took)
    return samples


def bench_run(peers, rounds, results):
    # Podman is not here: Debian's cannot start containers where root lacks CAP_SYS_RESOURCE.
    image = "127.0.0.1:5000/busybox:latest"
    samples = take_turns({
        "gantryctl": (lambda n: peers.gantry("run", "--rm", "--network", "none", image, "true"), peers.gantry_env),
        "ctr (runc)": (lambda n: peers.ctr("run", "--rm", image, f"r{n}", "true"), None),
        "docker (runc)": (lambda n: peers.docker("run", "--rm", "--network", "none", image, "true"), None),
    }, rounds)
    report("run --rm IMAGE true, no network", samples, results)


def bench_bridge(peers, rounds, results):
    image = "127.0.0.1:5000/busybox:latest"
    samples = take_turns({
        "gantryctl": (lambda n: peers.gantry("run", "--rm", image, "true"), peers.gantry_env),
        "docker (runc)": (lambda n: peers.docker("run", "--rm", image, "true"), None),
    }, rounds)
    report("run --rm IMAGE true, bridge network", samples, results)


def start_many(make, environment, count, at_once):
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda n: timed(make(n), environment), range(count)))
    return (time.perf_counter() - began) * 1000


def bench_parallel(peers, rounds, results):
    image, count, at_once = "127.0.0.1:5000/busybox:latest", 50, 10
    variants = {
        "gantryctl": (lambda n: peers.gantry("run", "-d", "--name", f"many{n}", image, "sleep", "600"),
                      peers.gantry("rm", "-f", *[f"many{n}" for n in range(count)]), peers.gantry_env),
        "docker (runc)": (lambda n: peers.docker("run", "-d", "--name", f"many{n}", image, "sleep", "600"),
                          peers.docker("rm", "-f", *[f"many{n}" for n in range(count)]), None),
        "ctr (runc), no network": (lambda n: peers.ctr("run", "-d", image, f"many{n}", "sleep", "600"),
                                   ["/bin/sh", "-c", "; ".join(
                                       f"{' '.join(peers.ctr('tasks', 'rm', '-f', f'many{n}'))}; "
                                       f"{' '.join(peers.ctr('containers', 'rm', f'many{n}'))}"
                                       for n in range(count))], None),
    }
    samples = {name: [] for name in variants}
    for _ in range(max(1, rounds // 10)):
        for name, (make, clean, environment) in variants.items():
            samples[name].append(start_many(make, environment, count, at_once))
            run(clean, environment)
    report(f"{count} detached containers, {at_once} at once", samples, results)


def bench_exec(peers, rounds, results):
    image = "127.0.0.1:5000/busybox:latest"
    run(peers.gantry("run", "-d", "--name", "ex", image, "sleep", "600"), peers.gantry_env)
    run(peers.docker("run", "-d", "--name", "ex", image, "sleep", "600"))
    run(peers.ctr("run", "-d", image, "ex", "sleep", "600"))
    try:
        samples = take_turns({
            "gantryctl": (lambda n: peers.gantry("exec", "ex", "true"), peers.gantry_env),
            "docker (runc)": (lambda n: peers.docker("exec", "ex", "true"), None),
            "ctr (runc)": (lambda n: peers.ctr("tasks", "exec", "--exec-id", f"e{n}", "ex", "true"), None),
        }, rounds)
    finally:
        run(peers.gantry("rm", "-f", "ex"), peers.gantry_env)
        run(peers.docker("rm", "-f", "ex"))
        run(peers.ctr("tasks", "rm", "-f", "ex"))
        run(peers.ctr("containers", "rm", "ex"))
    report("exec IMAGE true", samples, results)


def memory_of(program, folder):
    """(count, mean RSS, PSS, private KiB) of the processes running this program with `folder` on their command line."""
    rows = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # By name, not by file: our shim runs from a read-only clone of its own.
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            # Others may run on this machine; ours all have a path below the folder as an argument.
            if pathlib.Path(words[0]).name != program or str(folder) not in " ".join(words):
                continue
            sums = {}
            for line in (entry / "smaps_rollup").read_text().splitlines()[1:]:
                key, value = line.split(":")
                sums[key] = int(value.split()[0])
        except OSError:
            continue
        rows.append((sums["Rss"], sums["Pss"], sums["Private_Clean"] + sums["Private_Dirty"]))
    count = len(rows)
    return (count, *(sum(row[i] for row in rows) / count if count else 0 for i in range(3)))


def bench_memory(peers, rounds, results):
    image, count = "127.0.0.1:5000/busybox:latest", 100
    start_many(lambda n: peers.gantry("run", "-d", "--name", f"mem{n}", "--network", "none", image, "sleep", "600"),
               peers.gantry_env, count, 10)
    time.sleep(IDLE_SECONDS)
    ours = memory_of("containerd-shim-gantry-v2", peers.folder)
    run(peers.gantry("rm", "-f", *[f"mem{n}" for n in range(count)]), peers.gantry_env)
    peer_count = 20
    start_many(lambda n: peers.ctr("run", "-d", image, f"mem{n}", "sleep", "600"), None, peer_count, 5)
    time.sleep(IDLE_SECONDS)
    theirs = memory_of("containerd-shim-runc-v2", peers.folder)
    for n in range(peer_count):
        run(peers.ctr("tasks", "rm", "-f", f"mem{n}"))
        run(peers.ctr("containers", "rm", f"mem{n}"))
    print("\nshim memory, mean per process")
    for name, (number, rss, pss, private) in {"gantry": ours, "containerd (runc)": theirs}.items():
        print(f"  {name:24} RSS {rss:8.0f} KiB  PSS {pss:8.0f} KiB  private {private:8.0f} KiB  (n {number})")
    print("daemons, PSS KiB:", {name: round(memory_of(name, peers.folder)[2]) for name in
                                ("gantry-metadata", "gantry-engine", "gantry-task", "gantry-snapshotter",
                                 "gantry-gateway", "gantry-image", "dockerd", "containerd")})
    results["shim memory KiB (rss, pss, private)"] = {"gantry": ours[1:], "containerd": theirs[1:]}


def bench_pull(peers, rounds, results):
    name = "127.0.0.1:5000/big:latest"
    peers.push("big", "--layers", str(PULL_LAYERS), "--megabytes", str(PULL_LAYER_MEGABYTES))
    variants = {
        "gantryctl": (peers.gantry("pull", "-q", name), peers.gantry("rmi", "-f", name), peers.gantry_env),
        "docker": (peers.docker("pull", "-q", name), peers.docker("rmi", "-f", name), None),
        "ctr": (peers.ctr("images", "pull", "--plain-http", name), peers.ctr("images", "rm", "--sync", name), None),
        "podman": (peers.podman("pull", "-q", "--tls-verify=false", name), peers.podman("rmi", "-f", name), None),
    }
    samples = {variant: [] for variant in variants}
    for _ in range(max(2, rounds // 7)):
        for variant, (pull, remove, environment) in variants.items():
            os.sync()
            samples[variant].append(timed(pull, environment))
            run(remove, environment)
    report(f"pull {PULL_LAYERS} layers of {PULL_LAYER_MEGABYTES} MB", samples, results)


BENCHES = {"run": bench_run, "bridge": bench_bridge, "parallel": bench_parallel, "exec": bench_exec,
           "memory": bench_memory, "pull": bench_pull}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default=",".join(BENCHES))
    parser.add_argument("--bin", type=pathlib.Path, default=SOURCE / "build/release/bin")
    parser.add_argument("--json", type=pathlib.Path, help="write all medians here as well")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("suite_bench: needs root")
    if "GANTRY_BENCH_ISOLATED" not in os.environ:
        os.execvpe("unshare", ["unshare", "--net", "--mount", "--propagation", "private", sys.executable,
                               *sys.argv], {**os.environ, "GANTRY_BENCH_ISOLATED": "1"})
    run(["ip", "link", "set", "lo", "up"])
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gb", dir="/tmp"))
    peers, results = Peers(folder, options.bin.resolve()), {}
    try:
        peers.start_registry()
        peers.push("busybox")
        peers.start_containerd()
        peers.start_docker()
        peers.start_gantry()
        image = "127.0.0.1:5000/busybox:latest"
        run(peers.gantry("pull", image), peers.gantry_env)
        run(peers.docker("pull", image))
        run(peers.ctr("images", "pull", "--plain-http", image))
        run(peers.podman("pull", "--tls-verify=false", image))
        for name in options.only.split(","):
            BENCHES[name](peers, options.rounds, results)
    finally:
        peers.stop()
        subprocess.run(f"awk '{{print $5}}' /proc/self/mountinfo | grep '^{folder}/' | sort -r | "
                       f"while read m; do umount -l \"$m\"; done; rm -rf --one-file-system {folder}", shell=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


main()
