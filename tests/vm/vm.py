#!/usr/bin/env python3
"""Runs one program inside a small virtual machine that has this machine's files and Debian's kernel and systemd.

    sudo tests/vm/vm.py --build build/release -- build/release/tests/cgroup_v2_vm_test --gtest_filter=…

The machine's root is this one's, read-only, under a tmpfs, so that nothing has to be installed twice and nothing
done inside survives. qemu emulates (TCG): everything takes about ten times as long as here, and needs no /dev/kvm.
The exit code is the program's; 125 when the machine did not get that far (its console is then printed).
"""

import argparse
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import kernel

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
NOT_RUN = 125
PR_SET_PDEATHSIG = 1
CGROUPS = {
    "unified": "systemd.unified_cgroup_hierarchy=1",
    "hybrid": "systemd.unified_cgroup_hierarchy=0",
    "legacy": "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1",
}
# Passed into the guest when set here.
PASSED_ON = ["GTEST_FILTER", "GTEST_REPEAT", "GANTRY_FAILPOINTS"]


def share(tag: str, path: pathlib.Path, writable: bool = False) -> list[str]:
    device = f"local,id={tag},path={path},security_model=passthrough,multidevs=remap"
    return ["-fsdev", device + ("" if writable else ",readonly=on"),
            "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def qemu_command(options, boot: kernel.Kernel, scratch: pathlib.Path) -> list[str]:
    command_line = (f"console=ttyS0 loglevel=6 panic=-1 systemd.unit=gantry-vm.target {CGROUPS[options.cgroups]} "
                    f"apparmor=0 systemd.show_status=no systemd.log_target=kmsg systemd.log_level=notice mitigations=off "
                    f"gantry.source={SOURCE} gantry.build={options.build}")
    return [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(options.cpus),
        "-m", options.memory, "-kernel", str(boot.image), "-initrd", str(scratch / "initramfs"),
        "-append", command_line, "-serial", f"file:{scratch}/console",
        "-device", "virtio-serial-pci", "-chardev", "file,id=output,path=/dev/stdout,append=on",
        "-device", "virtserialport,chardev=output,name=gantry.output",
        # A disk of nothing, for limits on input and output.
        "-drive", "driver=null-co,size=64M,read-zeroes=on,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk",
        "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
        *share("root", scratch / "root"), *share("source", SOURCE), *share("build", options.build),
        *share("modules", boot.modules), *share("results", scratch / "results", writable=True),
    ]


def enter_namespace(root: pathlib.Path) -> None:
    """In the child: a view of the root without what is mounted below it (the guest mounts its own /proc).

    The machine ends with the process that started it, however that ends.
    """
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError("prctl")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", "/", root], check=True)


def write_words(path: pathlib.Path, words: list[str]) -> None:
    path.write_bytes(b"".join(word.encode() + b"\0" for word in words))


def environment(options) -> list[str]:
    settings = {"GANTRY_BIN": f"{options.build}/bin", "GANTRY_SOURCE": str(SOURCE), "GANTRY_VM": "1"}
    if options.user:
        settings["GANTRY_VM_USER"] = "gantryvm"
    settings.update({name: os.environ[name] for name in PASSED_ON if name in os.environ})
    if os.environ.get("GTEST_OUTPUT", "").startswith("xml:"):
        settings["GTEST_OUTPUT"] = "xml:/run/gantry-vm/xml/"
    return [f"{name}={value}" for name, value in settings.items()]


def collect(results: pathlib.Path, name: str) -> None:
    """The XML of GoogleTest to where the caller's GTEST_OUTPUT asks for it."""
    wanted = os.environ.get("GTEST_OUTPUT", "")
    if not wanted.startswith("xml:"):
        return
    folder = pathlib.Path(wanted.removeprefix("xml:"))
    for path in (results / "xml").glob("*.xml"):
        shutil.copy(path, folder / (f"{name}.xml" if name else path.name))


def run(options) -> int:
    boot = kernel.fetch(options.cache)
    with tempfile.TemporaryDirectory(prefix="gantry-vm-") as name:
        scratch = pathlib.Path(name)
        for folder in ["root", "results"]:
            (scratch / folder).mkdir()
        (scratch / "initramfs").write_bytes(kernel.make_initramfs(boot, (HERE / "guest/init").read_bytes()))
        write_words(scratch / "results/job", options.program)
        write_words(scratch / "results/environment", environment(options))
        command = ["unshare", "--mount", sys.executable, __file__, "--boot", str(scratch / "root"), "--",
                   *qemu_command(options, boot, scratch)]
        try:
            subprocess.run(command, timeout=options.timeout, stdin=subprocess.DEVNULL, check=False)
        except subprocess.TimeoutExpired:
            print(f"vm.py: the machine was stopped after {options.timeout} s", file=sys.stderr)
        collect(scratch / "results", options.name)
        code = scratch / "results/code"
        if code.exists() and not options.console:
            return int(code.read_text())
        console = scratch / "console"
        print(console.read_text(errors="replace") if console.exists() else "vm.py: no machine", file=sys.stderr)
        return int(code.read_text()) if code.exists() else NOT_RUN


def main() -> int:
    if len(sys.argv) > 3 and sys.argv[1] == "--boot":
        enter_namespace(pathlib.Path(sys.argv[2]))
        os.execvp(sys.argv[4], sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=lambda text: pathlib.Path(text).resolve(), default=SOURCE / "build/release")
    parser.add_argument("--cache", type=pathlib.Path, default=SOURCE / "build/vm-cache", help="where the kernel is kept")
    parser.add_argument("--cgroups", choices=CGROUPS, default="unified")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--name", default="", help="what the XML file is called; default: as the program")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--user", action="store_true", help="make a user, gantryvm, who is logged in")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds, whole machine")
    parser.add_argument("--console", action="store_true", help="print the machine's console in any case")
    parser.add_argument("program", nargs="+")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
