"""Archives of what a lesson trains, so that whoever came late or lost a run can go on after the training.

`NN.zip` holds `manifest.json` (lesson, base, machine, date, digest of what made it, parts with checksums)
and a folder for each part: a peft adapter, or a whole model. `python -m labkit archive NN` makes one by
running the lesson's solution up to its last call of `fit`.
"""

import argparse
import ast
import copy
import hashlib
import json
import os
import re
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from labkit import base_model, env
from labkit.errors import LabkitError
from labkit.paths import SOLUTIONS

SCHEMA = 1
KINDS = (".json", ".safetensors")  # no model card of peft's, and nothing that could hold code


def folder():
    """Where archives are looked for: `archives` in the cache (`LABKIT_CACHE`)."""
    return base_model.cache_dir() / "archives"


# ---- making one -----------------------------------------------------------------------------------------


def stage(into, name, value, whole=False):
    """Save a trained model, or those in a dict, as parts under the folder `into`; returns lines that say so.

    Without `whole`, which takes 4 bytes a weight, only peft's adapters are kept.
    """
    said = []
    for key, model in value.items() if isinstance(value, dict) else [(None, value)]:
        part = {"name": name, "key": key}
        title = name if key is None else f"{name}[{key!r}]"
        if hasattr(model, "peft_config"):
            part |= {"kind": "adapter", "four_bit": bool(getattr(model, "is_loaded_in_4bit", False))}
            options = {"save_embedding_layers": False}  # else peft asks the hub about the base
        elif whole and hasattr(model, "save_pretrained"):
            part, options = part | {"kind": "model"}, {}
        else:
            said.append(f"{title} is left out: {'not a model' if whole else 'no adapter of peft'}")
            continue
        place = Path(into) / hashlib.sha256(title.encode()).hexdigest()[:12]  # a later training replaces it
        model.save_pretrained(place, **options)
        (place / "part.json").write_text(json.dumps(part))
        said.append(f"{title} kept, {sum(file.stat().st_size for file in place.iterdir()) / 1e6:.1f} MB")
    return said


def pack(staged, lesson, target):
    """Write the parts staged in a folder as `target`/`NN.zip`, whole or not at all; returns its path.

    Raises LabkitError where nothing was staged, and for a folder that cannot be written.
    """
    parts = []
    for place in sorted(path.parent for path in Path(staged).glob("*/part.json")):
        files = sorted(one for one in place.iterdir() if one.suffix in KINDS and one.name != "part.json")
        part = json.loads((place / "part.json").read_text())
        parts.append(part | {"folder": place.name, "files": {file.name: _sha256(file) for file in files}})
    if not parts:
        raise LabkitError(f"lesson {lesson} left nothing to archive: no adapter of peft (--whole: no model)")
    path = Path(target) / f"{lesson}.zip"
    temporary = path.with_name(f".part-{path.name}")
    manifest = {"schema": SCHEMA, "lesson": lesson, **_made_by(lesson), "parts": parts}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w") as archive:  # stored: weights do not compress
            archive.writestr("manifest.json", json.dumps(manifest, indent=1))
            for part in parts:
                for name in part["files"]:
                    archive.write(Path(staged) / part["folder"] / name, f"{part['folder']}/{name}")
        os.replace(temporary, path)
    except OSError as error:
        raise LabkitError(f"{path} cannot be written ({error.strerror}). Name another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def trained_names(source):
    """Names that `fit` trains in a cell: `model` of `fit(model, ...)`, `models` of `fit(models[arm], ...)`.

    What a function trains when it is called is not found.
    """
    from labkit.exercises.runner import parse

    names, waiting = [], list(parse(source).body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        waiting += ast.iter_child_nodes(node)
        match node:
            case ast.Call(func=ast.Name("fit"), args=[ast.Name(name), *_]):
                names.append(name)
            case ast.Call(func=ast.Name("fit"), args=[ast.Subscript(value=ast.Name(name)), *_]):
                names.append(name)
    return list(dict.fromkeys(names))


def with_stages(notebook, into, whole=False):
    """A copy of a notebook that ends with its last training, a cell that stages after each one."""
    import nbformat

    cells, last = [], 0
    for cell in notebook.cells:
        cells.append(copy.deepcopy(cell))
        names = trained_names(cell.source) if cell.cell_type == "code" else []
        if names:
            lines = ["from labkit.workshop.archive import stage as _stage"]
            calls = [f"_stage({str(into)!r}, {name!r}, {name}, {whole})" for name in names]
            lines += [f"print(*{call}, sep='\\n')" for call in calls]
            cells.append(nbformat.v4.new_code_cell("\n".join(lines)))
            last = len(cells)
    ended = copy.copy(notebook)
    ended.cells = cells[:last]
    return ended


def main(argv):
    """The command `archive`; returns the exit code."""
    import nbformat

    from labkit.build import source
    from labkit.execute import run

    parser = argparse.ArgumentParser(
        prog="python -m labkit archive", description="Run a lesson's training and keep what it trains."
    )
    parser.add_argument("lesson", metavar="NN", help="lesson number")
    parser.add_argument("folder", nargs="?", help="where to write NN.zip (default: where it is looked for)")
    parser.add_argument("--whole", action="store_true", help="keep whole models too, 0.5 GB each")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds a cell may take (default: 1800)")
    options = parser.parse_args(argv)
    if env.profile() == "smoke":
        raise LabkitError("the smoke profile is for checks; make archives under cpu or gpu")
    stem = source.find([options.lesson], SOLUTIONS)[0].stem
    notebook = nbformat.read(SOLUTIONS / f"{stem}.ipynb", as_version=4)
    with tempfile.TemporaryDirectory() as staged:
        notebook = with_stages(notebook, staged, options.whole)
        run(notebook, SOLUTIONS, timeout=options.timeout, name=stem)
        for cell in notebook.cells:
            if "_stage(" in cell.source:
                print("".join(output.get("text", "") for output in cell.outputs), end="")
        path = pack(staged, stem[:2], options.folder or folder())
    print(f"written: {path}, {path.stat().st_size / 1e6:.1f} MB")
    return 0


# ---- using one ------------------------------------------------------------------------------------------


def load(lesson):
    """What the archive of a lesson holds: {name: model, or dict of models}, on the device, ready to go on.

    Raises LabkitError where there is none, and for one that is damaged or made with another base model.
    """
    path = folder() / f"{lesson}.zip"
    if not path.exists():
        raise LabkitError(
            f"there is no archive of lesson {lesson} in {folder()}. Ask whoever gives the course for "
            f"{lesson}.zip, or train: LABKIT_PROFILE=cpu makes it short"
        )
    found = {}
    with tempfile.TemporaryDirectory() as place:
        manifest = _unpacked(path, Path(place))
        _compare(manifest, path)
        for part in manifest["parts"]:
            model = _load_part(part, Path(place) / part["folder"])
            if part["key"] is None:
                found[part["name"]] = model
            else:
                found.setdefault(part["name"], {})[part["key"]] = model
    return found


def _unpacked(path, place):
    """Unpack into `place` the files that the manifest names, each as its checksum says; returns it."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            if manifest["schema"] != SCHEMA:
                raise LabkitError(f"{path} has schema {manifest['schema']}, this labkit reads {SCHEMA}")
            for part in manifest["parts"]:
                for name, sha256 in part["files"].items():
                    member = f"{part['folder']}/{name}"
                    if not re.fullmatch(r"[0-9a-f]{12}/[\w-][\w.-]*\.(json|safetensors)", member):
                        raise ValueError(f"no archive of ours has a file {member}")
                    if _sha256(Path(archive.extract(member, place))) != sha256:
                        raise ValueError(f"{member} is not what was archived")
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise LabkitError(f"{path} is damaged ({error}). Copy it again") from error
    return manifest


def _compare(manifest, path):
    """Refuse an archive made with another base; say it where the lesson has changed since."""
    now = _made_by(manifest["lesson"])
    if manifest["base"] != now["base"]:
        raise LabkitError(
            f"{path} was made with the base {manifest['base']}, and this is {now['base']}. "
            "Set or unset LABKIT_MODEL to match, or train yourself"
        )
    if manifest["digest"] != now["digest"]:
        print(f"(the lesson has changed since its archive of {manifest['made']}: numbers may differ)")


def _load_part(part, place):
    from transformers import AutoModelForCausalLM

    if part["kind"] == "model":
        return AutoModelForCausalLM.from_pretrained(place).to(env.device()).eval()
    from peft import PeftModel

    if part["four_bit"]:
        from labkit.methods.lora import four_bit_base

        base = four_bit_base()
    else:
        base = base_model.load_model()
    return PeftModel.from_pretrained(base, place, is_trainable=True).eval()


def _made_by(lesson):
    """What an archive's content depends on, and where it is made."""
    from labkit.records import store
    from labkit.records.tables import SYLLABUS

    stem = next((stem for stem, _ in SYLLABUS if stem[:2] == lesson), None)
    known = stem and (SOLUTIONS / f"{stem}.py").exists()
    own = os.environ.get("LABKIT_MODEL")
    return {
        "base": own and Path(own).name or f"{base_model.NAME} {base_model.GGUF_SHA256[:16]}",
        "digest": (store.lesson_digest(stem) if known else {}) | store.training_digest(),
        "versions": store.versions(), "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": env.machine(), "profile": env.profile(),
    }  # fmt: skip


def _sha256(file):
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
