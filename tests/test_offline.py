"""After set-up the course needs no network: proved in a network namespace that has only a loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys

import nbformat
import pytest

from labkit import base_model, paths

pytestmark = pytest.mark.slow

PROBE = """\
import errno, json, socket
outward = socket.socket()
outward.settimeout(5)
reached = outward.connect_ex(("1.1.1.1", 443))
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=5)
print(json.dumps([[name for _, name in socket.if_nameindex()], errno.errorcode.get(reached, reached)]))
"""
CELLS = """\
import socket
assert [name for _, name in socket.if_nameindex()] == ["lo"], "this kernel is not cut off"
---
from labkit import load, load_model, load_tokenizer
tokenizer, data = load_tokenizer(), load("tickets")
print(len(tokenizer), sorted(data))
---
print(load_model().num_parameters())
"""


def tool(name):
    """The path of a command, also where the PATH leaves out the administrator's folders."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def unshare():
    """The command that starts another one cut off from the network."""
    return [tool("unshare"), "-n"] if os.geteuid() == 0 else [tool("unshare"), "-rn"]


def cut_off(*command):
    """Run a command where only the loopback is up; returns the finished process."""
    inside = [*unshare(), "sh", "-c", 'ip=$1; shift; "$ip" link set lo up && exec "$@"', "sh", tool("ip")]
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"}
    for helpful in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        environment.pop(helpful, None)  # a learner has not set these
    return subprocess.run(
        [*inside, *command], cwd=paths.ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def offline(demand):
    """`cut_off`, where namespaces can be made and the base model is there."""
    tools = tool("unshare") and tool("ip")
    works = tools and subprocess.run([*unshare(), "true"], capture_output=True).returncode == 0
    demand(works, "unshare and ip, and the right to make a network namespace (root, or user namespaces)")
    if not (base_model.model_dir() / "complete.json").exists():
        pytest.fail("the base model is not in the cache: run `python -m labkit fetch` first")
    return cut_off


def test_the_namespace_has_a_loopback_and_no_network(offline):
    done = offline(sys.executable, "-c", PROBE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["lo"], "ENETUNREACH"]


def test_the_doctor_is_content_without_a_network(offline):
    done = offline(sys.executable, "-m", "labkit", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "base model" in done.stdout and "FAIL" not in done.stdout


def test_a_notebook_loads_model_and_data_without_a_network(offline, tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS.split("---\n")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "tiny.ipynb")
    run = (
        "import sys; from labkit.execute import run\n"
        "print([o.text for c in run(sys.argv[1], '.', progress=False)[0].cells for o in c.outputs])"
    )
    done = offline(sys.executable, "-c", run, str(tmp_path / "tiny.ipynb"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "['test', 'train', 'validation']" in done.stdout and "134515008" in done.stdout


def test_the_notebook_check_notices_a_network():
    first = CELLS.split("---\n")[0]
    done = subprocess.run([sys.executable, "-c", first], capture_output=True, text=True, timeout=60)
    only_loopback = [name for _, name in socket.if_nameindex()] == ["lo"]
    assert (done.returncode == 0) == only_loopback
    assert only_loopback or "not cut off" in done.stderr
