"""Debian's kernel for the virtual machine: fetched as a package, unpacked into a cache, never installed.

Installing linux-image-* would run the hooks that make boot loaders and initramfs images for this machine; here the
package is only downloaded and its files are taken out.
"""

import fcntl
import os
import pathlib
import shutil
import subprocess
import tempfile

# The standard kernel: the cloud flavour, which boots faster, has no 9p.
META_PACKAGE = "linux-image-amd64"
# What the guest's /init loads before there is a root to modprobe from.
BOOT_MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console"]


class Kernel:
    """An unpacked kernel package: `image` to boot, `modules` to share as /lib/modules."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.release = next((folder / "lib/modules").iterdir()).name
        self.image = folder / "boot" / f"vmlinuz-{self.release}"
        self.modules = folder / "lib/modules"

    def boot_modules(self) -> list[pathlib.Path]:
        """Files of BOOT_MODULES and what they need, in the order in which they must be loaded."""
        needs = {}
        for line in (self.modules / self.release / "modules.dep").read_text().splitlines():
            name, _, rest = line.partition(":")
            needs[name] = rest.split()
        ordered = []

        def add(name: str) -> None:
            for other in reversed(needs[name]):
                add(other)
            if name not in ordered:
                ordered.append(name)

        for wanted in BOOT_MODULES:
            file_name = wanted.replace("-", "_") + ".ko"
            add(next(path for path in needs if pathlib.Path(path).name.replace("-", "_") == file_name))
        return [self.modules / self.release / name for name in ordered]


def fetch(cache: pathlib.Path) -> Kernel:
    """The kernel in `cache`, downloaded (70 MB) the first time. Callers side by side wait for each other."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cache / "kernel"
        if not done.exists():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                _unpack(pathlib.Path(scratch))
                os.rename(pathlib.Path(scratch) / "tree", done)
        return Kernel(done)


def _unpack(scratch: pathlib.Path) -> None:
    depends = subprocess.run(["apt-cache", "depends", "--important", META_PACKAGE], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    packages = [line.split(":", 1)[1].strip() for line in depends.splitlines() if "Depends: linux-image-" in line]
    if not packages:
        raise RuntimeError(f"apt knows no package for {META_PACKAGE}; run: apt-get update")
    subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", packages[0]], check=True, cwd=scratch)
    package = next(scratch.glob("*.deb"))
    tree = scratch / "tree"
    subprocess.run(["dpkg-deb", "--extract", package, tree], check=True)
    release = next((tree / "lib/modules").iterdir()).name
    subprocess.run(["depmod", "--basedir", tree, release], check=True)


class InitialFiles:
    """A cpio archive (newc) in memory: the initramfs."""

    def __init__(self):
        self._bytes = bytearray()
        self._inode = 0

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = [self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
        self._bytes += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._pad()
        self._bytes += data
        self._pad()

    def _pad(self) -> None:
        self._bytes += bytes(-len(self._bytes) % 4)

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self._bytes)


def make_initramfs(kernel: Kernel, init: bytes) -> bytes:
    """busybox, the boot modules and `init` as /init."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise RuntimeError("busybox is missing; run: deploy/install-packages vm")
    files = InitialFiles()
    for folder in ["bin", "dev", "proc", "sys", "modules", "lower", "layer", "root"]:
        files.add(folder, 0o40755)
    files.add("bin/busybox", 0o100755, pathlib.Path(busybox).read_bytes())
    order = []
    for module in kernel.boot_modules():
        files.add(f"modules/{module.name}", 0o100644, module.read_bytes())
        order.append(module.name)
    files.add("modules/order", 0o100644, "\n".join(order).encode() + b"\n")
    files.add("init", 0o100755, init)
    return files.finish()
