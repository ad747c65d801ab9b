"""A wall clock that jumps while programs run. Like a real jump, it does not move the monotonic clock.

libfaketime is not used, because with it `time.sleep` fails after a jump backwards.
"""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *offset;
__attribute__((constructor)) static void begin(void) {
    int file = getenv("CLOCK_OFFSET") ? open(getenv("CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) offset = found;
    if (file >= 0) close(file);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return result;
}
time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return result ? (*result = now.tv_sec) : now.tv_sec;
}
int gettimeofday(struct timeval *result, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    result->tv_sec = now.tv_sec;
    result->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@dataclass(frozen=True)
class MovedClock:
    """A clock that programs with `environment` use."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.folder / "clock.so"), "CLOCK_OFFSET": str(self.folder / "offset")}

    def jump(self, offset: int) -> None:
        """Set the clock to `offset` seconds after the true time, also for programs that already run."""
        with (self.folder / "offset").open("r+b") as file:
            file.write(struct.pack("l", offset))


def moved_clock(folder: Path) -> MovedClock:
    """Build the clock in a folder, with the system's C compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clock.c").write_text(_SOURCE, encoding="utf-8")
    (folder / "offset").write_bytes(struct.pack("l", 0))
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(folder / "clock.so"), str(folder / "clock.c")]
    subprocess.run(command, check=True)
    return MovedClock(folder)
