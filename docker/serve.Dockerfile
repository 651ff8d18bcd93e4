# A server that scores uploads with one run, which is mounted at /run. CUDA as in Dockerfile: --build-arg TORCH_INDEX=…
#   docker run --rm -p 127.0.0.1:8000:8000 -v $PWD/runs/ganomaly_headct/…:/run:ro --read-only --tmpfs /tmp anomaly-serve
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /app
COPY requirements.lock .
RUN pip install --no-cache-dir --extra-index-url ${TORCH_INDEX} --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY anomaly_lab anomaly_lab
COPY experiments experiments
# the lock holds the extra's packages, too
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
 && useradd --no-create-home --uid 1000 lab

USER lab
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s --interval=30s --timeout=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=8)"]
# further words of the command line are settings: docker run … anomaly-serve max_mb=64
ENTRYPOINT ["python", "-m", "anomaly_lab", "serve", "/run", "host=0.0.0.0", "port=8000"]
