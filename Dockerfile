# structbench from this repository: docker build -t structbench . && docker run --rm --network host structbench load …
FROM python:3.13-slim-bookworm

RUN useradd --create-home --uid 10001 structbench && install -d -o structbench /data
COPY pyproject.toml README.md LICENSE /src/
COPY loadgen /src/loadgen
COPY structbench /src/structbench
RUN pip install --no-cache-dir --disable-pip-version-check /src

USER structbench
WORKDIR /data
VOLUME /data
ENTRYPOINT ["structbench"]
CMD ["--help"]
