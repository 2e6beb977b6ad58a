# One image for every process of ours; what a container runs stands in docker-compose.yml.
FROM python:3.11-slim AS packages
# Where packages come from, when it is not PyPI: docker compose build --build-arg PIP_INDEX_URL=…
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /venv
COPY requirements/runtime.txt /requirements.txt
RUN /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /requirements.txt

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --no-create-home countinghouse \
 && for name in users settings ledger cards tasks telegram audit gateway telegram-simulator payment-simulator; do mkdir -p /orders/$name; done \
 && mkdir -p /home/countinghouse/spool \
 && chown -R countinghouse /orders /home/countinghouse
COPY --from=packages /venv /venv
WORKDIR /app
COPY shared shared
COPY services services
COPY gateway gateway
COPY simulators simulators
COPY operations operations
RUN python -m compileall -q shared services gateway simulators operations
USER countinghouse
ENV COUNTINGHOUSE_HOME=/home/countinghouse
