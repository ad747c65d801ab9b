"""A file system of limited size, which can be filled and emptied. Mounting it needs root."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """A mounted file system."""

    folder: Path

    @property
    def _balloon(self) -> Path:
        return self.folder / ".balloon"

    @property
    def free(self) -> int:
        """Free bytes."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, left: int) -> None:
        """Fill the file system with one file, so that at most `left` bytes are free while others write, too."""
        self.empty()
        with self._balloon.open("wb") as file:
            while self.free > left:
                try:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + self.free - left)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def empty(self) -> None:
        """Delete this file."""
        self._balloon.unlink(missing_ok=True)


_MOUNT, _UNMOUNT = (shutil.which(name, path=os.defpath) or name for name in ("mount", "umount"))


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """Mount a file system of `size` bytes in memory at `folder`, until the block ends.

    Raises:
        CalledProcessError: it cannot be mounted, for example without root.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([_MOUNT, "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run([_UNMOUNT, "--lazy", str(folder)], check=True)
