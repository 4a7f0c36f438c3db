# Built and run by people, not by CI (CONTRIBUTING.md, "The container image").
#   docker build -t spanloom . && docker run -p 4318:4318 -p 16686:16686 -v spanloom-data:/data spanloom
FROM python:3.12-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/spanloom
COPY . /source
# A container without the native kernel would be slow and nobody would know why: no kernel, no image.
RUN /opt/spanloom/bin/pip install --no-cache-dir "/source[cluster]" \
    && /opt/spanloom/bin/python -c 'import spanloom._native.kernel'

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --user-group --no-create-home spanloom \
    && install -d -o spanloom -g spanloom /data
COPY --from=build /opt/spanloom /opt/spanloom
ENV PATH=/opt/spanloom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SPANLOOM__DATA__FOLDER=/data \
    SPANLOOM__HTTP__HOST=0.0.0.0 \
    SPANLOOM__LOG__FORMAT=json
USER spanloom
VOLUME /data
EXPOSE 4317 4318 9411 16686
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:16686/ready', timeout=2)"]
ENTRYPOINT ["spanloom"]
CMD ["run"]
