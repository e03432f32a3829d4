# structbench from this repository: docker build -t structbench . && docker run --rm --network host --read-only
#   --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp -v results:/data structbench load …
# The base image has no digest here: its tag moves with each security fix of Debian, and a digest would keep the faults.
FROM python:3.13-slim-bookworm

RUN useradd --create-home --uid 10001 structbench && install -d -o structbench /data
COPY pyproject.toml README.md LICENSE constraints.txt /src/
COPY loadgen /src/loadgen
COPY structbench /src/structbench
RUN grep -v -- --hash /src/constraints.txt | tr -d '\\' > /src/locked.txt && \
    pip install --no-cache-dir --disable-pip-version-check -c /src/locked.txt '/src[openai,anthropic]'

USER structbench
WORKDIR /data
VOLUME /data
ENTRYPOINT ["structbench"]
CMD ["--help"]
