"""Measuring in a process of its own, for a notebook that holds memory of the card itself."""

import json
import subprocess
import sys

from labkit.errors import LabkitError
from labkit.memory.report import Report
from labkit.paths import ROOT

CODE = """
import json, sys
from labkit.memory import Setting, measure
print(json.dumps(measure(Setting.from_dict(json.loads(sys.argv[1])), alone=False).to_dict()))
"""


def measure_apart(setting):
    """Report of `measure` for a setting, in a fresh process; the card may be in use (by the notebook, say).

    Its process figure is what the card shows beyond what it showed before: others must keep still meanwhile.
    Raises LabkitError with the end of what the process said if it fails.
    """
    command = [sys.executable, "-W", "ignore", "-c", CODE, json.dumps(setting.to_dict())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise LabkitError(f"measuring {setting.method} failed:\n{done.stderr[-1000:]}")
    return Report.from_dict(json.loads(done.stdout.splitlines()[-1]))
