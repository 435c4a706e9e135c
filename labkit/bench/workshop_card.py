"""A card as large as a workshop's: part of it held, what is left watched, and NVIDIA's MPS on or off."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from labkit.errors import LabkitError

CONTROL = "nvidia-cuda-mps-control"
CLIENT = [sys.executable, "-c", "import torch; torch.ones(2).cuda().sum().item()"]
FIRST = 60  # seconds that MPS's first client may take: its server starts with it
SETTLE = 20  # seconds that memory of ended processes may take to come back
SLACK = 300e6  # bytes that need not


class Card:
    """A card of which `size` bytes are free; `peak` is the most that others took of them since `reset`."""

    def __init__(self, size):
        import torch

        torch.cuda.init()
        free = self._free()
        if free < size:
            raise LabkitError(
                f"this card has {free / 1e9:.1f} GB free, not {size / 1e9:.1f}: end what runs on it, or say "
                "how large a card the learners share, as in --card 40"
            )
        self.held = torch.empty(int(free - size), dtype=torch.uint8, device="cuda")
        self.size = self.least = self._free()

    def look(self):
        """Note what is free now."""
        self.least = min(self.least, self._free())

    def reset(self):
        """Wait until the memory of processes that have ended is free again, and forget the peak.

        LabkitError if it is not within SETTLE seconds: what comes next would have a smaller card.
        """
        began = time.monotonic()
        while (missing := self.size - self._free()) > SLACK:
            if time.monotonic() - began >= SETTLE:
                raise LabkitError(f"the card did not come back: {missing / 1e9:.1f} GB are still taken. Look "
                                  "with nvidia-smi for what holds them, and run the bench again")  # fmt: skip
            time.sleep(0.5)
        self.least = self._free()

    @property
    def peak(self):
        """Bytes in use at most."""
        return self.size - self.least

    def close(self):
        """Give back what was held."""
        import torch

        self.held = None
        torch.cuda.empty_cache()

    @staticmethod
    def _free():
        import torch

        return torch.cuda.mem_get_info()[0]


class NoCard:
    """Stands for the card where there is none."""

    size = peak = 0

    def look(self):
        """Do nothing."""

    reset = close = look


def card_of(size):
    """A Card of `size` bytes, or NoCard on a machine without one."""
    import torch

    return Card(size) if torch.cuda.is_available() else NoCard()


def has_mps():
    """Is the daemon that lets processes share a card at once on this machine?"""
    return shutil.which(CONTROL) is not None


@contextmanager
def mps(card):
    """Run MPS for the card of that name inside; yields what its clients need in the environment.

    Sockets and logs lie in a folder of its own; no setting of the card changes. LabkitError if it fails, or
    if a first client finds no server: clients then go on without MPS, and nothing of theirs says so.
    """
    with tempfile.TemporaryDirectory(prefix="mps", ignore_cleanup_errors=True) as folder:
        places = {f"CUDA_MPS_{kind}_DIRECTORY": str(Path(folder, kind.lower())) for kind in ("PIPE", "LOG")}
        for place in places.values():
            Path(place).mkdir()
        own = {**os.environ, **places, "CUDA_VISIBLE_DEVICES": card}
        # No pipes: the daemon would keep them open, and we would wait for their end.
        quiet = {"env": own, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 30}
        try:
            done = subprocess.run([CONTROL, "-d"], stdin=subprocess.DEVNULL, **quiet)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LabkitError(f"MPS did not start: {error}") from error
        if done.returncode:
            raise LabkitError(f"MPS did not start: {CONTROL} -d ended with {done.returncode}")
        more = {**places, "CUDA_VISIBLE_DEVICES": "0"}  # the daemon's one card is number 0 for its clients
        try:
            _try({**os.environ, **more})
            yield more
        finally:
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([CONTROL], input=b"quit -t 5\n", **quiet)


def _try(environment):
    """Be MPS's first client; LabkitError unless that works and a server then runs."""
    try:
        client = subprocess.run(CLIENT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, timeout=FIRST)  # fmt: skip
        servers = subprocess.run([CONTROL], env=environment, input=b"get_server_list\n",
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabkitError(f"MPS does not serve: {error}") from error
    if client.returncode:
        raise LabkitError(f"MPS does not serve: its first client ended with {client.returncode}")
    if not re.search(rb"^\s*\d+\s*$", servers.stdout, re.MULTILINE):
        raise LabkitError("MPS does not serve: its first client went on without a server")
