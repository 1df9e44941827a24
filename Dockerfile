# Predicting with exported models; no torch.
#   docker build -t segshrink-predict .
#   docker run --rm -v "$PWD:/data" segshrink-predict segshrink predict student.onnx scene.tif --out maps
FROM debian:stable-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE NOTICE ./
COPY src src
COPY tools/web tools/web
RUN python3 -m venv /opt/segshrink \
    && /opt/segshrink/bin/pip install --no-cache-dir ".[openvino,vector]" \
    && rm -rf /src

ENV PATH=/opt/segshrink/bin:$PATH
RUN useradd --create-home --uid 1000 predict
USER 1000
WORKDIR /data
CMD ["segshrink", "--help"]
