# fewstep in a container, as a user without rights over the machine. Not built here yet: see docs/quickstart.md.
#
#   docker build -t fewstep .                                                   for CPUs
#   docker build -t fewstep --build-arg TORCH_INDEX=https://pypi.org/simple .   for NVIDIA GPUs: PyPI's torch brings CUDA
#   docker run --rm -v "$PWD/out:/work" fewstep demo
#   docker run --rm --gpus all --ipc=host -v "$PWD/out:/work" -v "$HOME/.cache/huggingface:/cache" fewstep train sd3-medium ...
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
RUN python -m venv /opt/fewstep
ENV PATH=/opt/fewstep/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt .
# a layer of its own: it is the largest, and changes with constraints.txt alone
RUN pip install --constraint constraints.txt --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple torch
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
ARG EXTRAS=eval,parquet
RUN pip install --constraint constraints.txt ".[$EXTRAS]"

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 fewstep && mkdir /work /cache && chown fewstep /work /cache
COPY --from=build /opt/fewstep /opt/fewstep
ENV PATH=/opt/fewstep/bin:$PATH HF_HOME=/cache PYTHONUNBUFFERED=1
USER fewstep
WORKDIR /work
VOLUME ["/work", "/cache"]
ENTRYPOINT ["fewstep"]
CMD ["doctor"]
