# docker build -t map2map .
# docker run --rm --user $(id -u):$(id -g) -v $PWD:/data map2map train RECIPE
#
# For GPUs:
# docker build -t map2map:cuda --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
# docker run --rm --gpus all ... map2map:cuda train RECIPE
#
# BASE         any Debian or Ubuntu; its Python 3.11 or newer is used, or else installed
# EXTRAS       of map2map, such as export,tune
# TORCH_INDEX  one more package index, to take PyTorch from: the build for the CPU alone is a tenth
#              of the size of the one that runs on both
# USER_ID      of the user in the image
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG EXTRAS=""
ARG TORCH_INDEX=""
ARG USER_ID=1000

# git, for the commit that environment.json names; a PyTorch that the base brings along is seen
RUN apt-get update \
 && apt-get install -y --no-install-recommends git \
 && { command -v python3 || apt-get install -y --no-install-recommends python3; } \
 && { python3 -c "import ensurepip" || apt-get install -y --no-install-recommends python3-venv; } \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv --system-site-packages /opt/venv \
 && useradd --create-home --non-unique --uid "${USER_ID}" m2m \
 && mkdir /data && chown m2m /data \
 && mkdir --mode 1777 /var/cache/m2m
ENV PATH=/opt/venv/bin:$PATH

# PyTorch before our code, so that a change of the latter builds in seconds
WORKDIR /opt/map2map
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[${EXTRAS}]}"

# caches, for users of the host, who have no home here
ENV MPLCONFIGDIR=/var/cache/m2m/matplotlib TORCHINDUCTOR_CACHE_DIR=/var/cache/m2m/inductor
USER m2m
WORKDIR /data
RUN m2m --version
ENTRYPOINT ["m2m"]
CMD ["--help"]
