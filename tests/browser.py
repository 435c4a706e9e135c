"""JupyterLab in a headless Chromium, for tests and for looking at a notebook.

    python tests/browser.py notebooks/00_start_here.ipynb out_dir [--run]

writes out_dir/NAME_01.png, _02.png, ... from the top of the notebook to its end, and prints their
paths; `--run` runs all cells first. The notebook is copied: the original stays as it is.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
# Where the last cell ends, in pixels from the notebook's top: below it JupyterLab leaves a window of nothing.
END = """panel => panel.scrollTop - panel.getBoundingClientRect().top
    + Math.max(...[...panel.querySelectorAll('.jp-Cell')].map(cell => cell.getBoundingClientRect().bottom))"""
WIDTH, HEIGHT = 1280, 1000
# Resolves to false where the kernel is not ready in time, as when JupyterLab asks which one to start.
READY = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    const ready = panel.context.ready.then(() => panel.sessionContext.ready).then(() => true);
    return Promise.race([ready, new Promise(resolve => setTimeout(() => resolve(false), 30000))]);
}"""
# Everything is drawn at once, so that a picture is complete; by default only what is in view is.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
}


def chromium():
    """The path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def jupyterlab(root, scratch, profile=None):
    """Serve `root`, keeping everything that Jupyter writes in `scratch`; yields the address."""
    scratch = Path(scratch)
    for name, values in SETTINGS.items():
        file = scratch / "settings" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
           "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
           "IPYTHONDIR": "ipython"}  # fmt: skip
    environment = {**os.environ, **{name: str(scratch / folder) for name, folder in own.items()}}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if profile:
        environment["LABKIT_PROFILE"] = profile
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=t",
        f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    log = scratch / "server.log"
    with open(log, "w") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT,
                                  stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        try:
            _wait_for(f"http://127.0.0.1:{port}/api?token=t", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()  # ends its kernels too
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def _wait_for(url, server, log, seconds=45):
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def opened(address, name):
    """Open the notebook `name` (below the served folder); yields the page, its errors in `page.errors`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        try:
            page.goto(f"{address}/lab/tree/{name}?reset&token=t")
            page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=45_000)
            page.wait_for_function("window.jupyterapp !== undefined")
            if not page.evaluate(READY):
                raise RuntimeError(f"{name}: the kernel was not ready in 30 s (does the notebook name one?)")
            command(page, "application:toggle-left-area")
            page.wait_for_timeout(500)  # formulas and pictures settle
            yield page
        finally:
            browser.close()


def command(page, name):
    """Run a JupyterLab command, as from its palette."""
    page.evaluate("name => window.jupyterapp.commands.execute(name)", name)


def run(page, cells=None, seconds=60):
    """Run the first `cells` cells (all of them if None) and wait until each code cell has finished."""
    page.evaluate(
        """count => {
            const app = window.jupyterapp, book = app.shell.currentWidget.content;
            if (count === null) { app.commands.execute('notebook:run-all-cells'); return; }
            book.activeCellIndex = 0;
            book.deselectAll();
            book.extendContiguousSelectionTo(count - 1);
            app.commands.execute('notebook:run-cell');
        }""",
        cells,
    )
    page.wait_for_function(
        """count => window.jupyterapp.shell.currentWidget.content.widgets.slice(0, count ?? undefined)
            .filter(cell => cell.model.type === 'code' && cell.model.sharedModel.getSource().trim())
            .every(cell => cell.model.executionCount && cell.model.executionState !== 'running')""",
        arg=cells,
        timeout=seconds * 1000,
    )
    page.wait_for_timeout(500)


def shoot(page, folder, name):
    """Picture the notebook from top to end, a window's height each; returns the files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}_[0-9][0-9].png"):
        old.unlink()
    panel = page.locator(".jp-WindowedPanel-outer:visible").first
    height = panel.bounding_box()["height"]
    files, position = [], 0
    while True:
        panel.evaluate("(panel, top) => { panel.scrollTop = top; }", position)
        page.wait_for_timeout(300)
        files.append(folder / f"{name}_{len(files) + 1:02}.png")
        page.screenshot(path=files[-1])
        total = panel.evaluate(END)
        position += height - 40  # a little of the last picture again
        if position + 40 >= total or len(files) == 99:
            return files


def main(argv=None):
    """Picture one notebook; returns the exit code."""
    parser = argparse.ArgumentParser(description="Pictures of a notebook in JupyterLab.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", action="store_true", help="run all cells first (in a copy)")
    parser.add_argument("--timeout", type=int, default=600, help="seconds all cells may take (default: 600)")
    options = parser.parse_args(argv)
    if not options.notebook.is_file():
        parser.error(f"{options.notebook} is not a file")
    if not chromium():
        parser.error("no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as scratch:
        served = Path(scratch) / "served"
        served.mkdir()
        shutil.copy(options.notebook, served)
        with jupyterlab(served, scratch) as address, opened(address, options.notebook.name) as page:
            if options.run:
                run(page, seconds=options.timeout)
            for file in shoot(page, options.folder, options.notebook.stem):
                print(file)
            for error in page.errors:
                print("page error:", error, file=sys.stderr)
            return 1 if page.errors else 0


if __name__ == "__main__":
    sys.exit(main())
