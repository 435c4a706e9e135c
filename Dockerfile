# The course with everything installed: JupyterLab on port 8888, lesson 00 open, no network needed.
#
#   docker build -t finetuning-workbook .
#   docker run --rm --init -p 127.0.0.1:8888:8888 finetuning-workbook
#
# For a GPU build with --build-arg PIP_EXTRA_INDEX_URL= and run with --gpus all: torch's own wheels bring
# CUDA, the host its driver. Another base with Python 3.11.5+ or 3.12, or with apt packages of one, will do:
# --build-arg BASE=nvidia/cuda:VERSION-runtime-ubuntu24.04
ARG BASE=python:3.11-slim

# What the course needs of the system; the dev container stops here and brings the course itself.
FROM ${BASE} AS tools
# gcc: triton compiles for the GPU when it runs. bubblewrap: for grading. No versions: Debian keeps only one.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        bubblewrap ca-certificates gcc git iproute2 libc6-dev make \
    && if ! command -v python3; then \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-dev python3-venv; \
    fi \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --shell /bin/bash learner \
    && install -d -o learner -g learner /home/learner/workbook
# By name, since the base decides which number is free.
# hadolint ignore=DL3066
USER learner

FROM tools AS course
# A CPU build of torch, and not 3 GB of CUDA; empty for the build of the package index.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /home/learner/workbook
COPY --chown=learner:learner . .
RUN PIP_NO_CACHE_DIR=1 make setup
EXPOSE 8888
CMD [".venv/bin/python", "-m", "jupyterlab", "--ip=0.0.0.0", "--port=8888", "--no-browser", \
     "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb", "--LabApp.news_url=None", \
     "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
