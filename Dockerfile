# docker build -t map2map . ; docker run -v $PWD:/data map2map train RECIPE
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG EXTRAS=""
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/map2map
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt torch \
 && pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[${EXTRAS}]}"
WORKDIR /data
ENTRYPOINT ["m2m"]
CMD ["--help"]
