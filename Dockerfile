# The base is pinned by tag: a digest would be safer against a moved tag, and Renovate or Dependabot adds one where the
# registry can be asked. Both stages must have the same Python at the same place: the environment links to it.
FROM python:3.13-slim-trixie AS build
WORKDIR /src
COPY requirements-build.lock requirements.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: -r requirements-build.lock \
    && python -m venv --without-pip /opt/m2m-verifier \
    && /opt/build/bin/pip --python /opt/m2m-verifier/bin/python install --no-cache-dir --require-hashes \
        --only-binary=:all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY verifier ./verifier
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir /opt/dist . \
    && /opt/build/bin/pip --python /opt/m2m-verifier/bin/python install --no-cache-dir --no-deps --no-index \
        /opt/dist/*.whl

FROM python:3.13-slim-trixie
# The base's pip has no business in what runs.
RUN python -m pip uninstall --yes pip
COPY --from=build /opt/m2m-verifier /opt/m2m-verifier
# A number: Kubernetes' runAsNonRoot cannot look up a name.
USER 65532:65532
# For `kubectl exec POD -- m2m-verifier explain …`.
ENV PATH=/opt/m2m-verifier/bin:$PATH
# Bytecode was compiled above; a read-only root takes no more.
ENV PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000 9090
ENTRYPOINT ["/opt/m2m-verifier/bin/m2m-verifier"]
CMD ["serve"]
