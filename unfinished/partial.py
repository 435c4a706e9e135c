# Runs the jobs of `bench NAME` that a file lists: partial.py NAME FOLDER JOBS FILE
import sys, importlib
from labkit import env
from labkit.bench import jobs
from labkit.records import store
name, folder, beside, file = sys.argv[1:]
m = importlib.import_module(f"labkit.bench.{name}")
digest = {**store.data_digest("tickets"), **store.training_digest(), **store.code_digest(*(f"labkit/{p}.py" for p in m.CODE))}
jobs.run(name, open(file).read().split(), folder, int(beside), {**digest, "profile": env.profile()})
