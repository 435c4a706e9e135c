#!/bin/sh
# Sets up the course in this folder from bundle/ alone: no network is asked. Then: make lab
set -eu
cd "$(dirname "$0")"

wanted="@WANTED@"
asks='import platform, sys; print("%d.%d" % sys.version_info[:2], platform.system(), platform.machine())'
chosen=
for name in ${PYTHON:-python@PYTHON@ python3}; do
    if [ "$("$name" -c "$asks" 2>/dev/null)" = "$wanted" ]; then chosen=$name; break; fi
done
if [ -z "$chosen" ]; then
    echo "This bundle's wheels are for Python $wanted, and none was found." >&2
    echo "Install it, or name it: PYTHON=/path/to/python@PYTHON@ sh install.sh" >&2
    exit 1
fi
if ! command -v make >/dev/null; then
    echo "make is needed and not installed." >&2
    exit 1
fi

echo "== checking the files of this bundle"
"$chosen" - <<'END'
import hashlib, json, os, sys

bad = []
for name, entry in json.load(open("bundle/manifest.json"))["files"].items():
    if not os.path.isfile(name):
        bad.append(f"{name} is missing")
    elif os.path.getsize(name) != entry["bytes"]:
        bad.append(f"{name} has {os.path.getsize(name):,} bytes instead of {entry['bytes']:,}")
    else:
        digest = hashlib.sha256()
        with open(name, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        if digest.hexdigest() != entry["sha256"]:
            bad.append(f"{name} is damaged")
if bad:
    sys.exit("\n".join(bad) + "\nUnpack the archive again; if it stays so, copy it again.")
END

# Relative, since pip takes a path with a space for two; make runs in this folder.
export PIP_NO_INDEX=1 PIP_FIND_LINKS=bundle/wheels PIP_CONFIG_FILE=/dev/null
export LABKIT_BASE_GGUF="bundle/model/@GGUF@"
make setup PYTHON="$chosen"
echo "== ready: make lab opens lesson 00. The folder bundle/ is not needed any more."
