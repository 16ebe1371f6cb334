#!/usr/bin/env bash
# build.sh CACHE: builds the Dockerfile, unchanged, without an engine and without an image registry. The base image that
# its FROM names is made of Debian's packages. Needs root, buildah and mmdebstrap. What it makes stays in CACHE.
set -euo pipefail
cache=$1
cd "$(dirname "$0")/../.."
base=$(sed -n 's/^FROM \(\S*\)$/\1/p' Dockerfile) # python:3.13-slim-trixie
store=(--root "$cache/storage" --runroot "$cache/run")

if ! buildah "${store[@]}" inspect --type image "localhost/$base" >/dev/null 2>&1; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" pip
  # What the official image has: `python` under /usr/local, and a pip that pip can uninstall.
  # shellcheck disable=SC2016 # $1, the new root, is mmdebstrap's; $wheel is the inner shell's
  mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
    --customize-hook="cp $folder"'/pip-*.whl "$1/tmp"' \
    --customize-hook='chroot "$1" sh -ec "
      rm /usr/lib/python3.*/EXTERNALLY-MANAGED
      ln -s /usr/bin/python3 /usr/local/bin/python
      for wheel in /tmp/*.whl; do python \$wheel/pip install --no-index --no-cache-dir \$wheel; rm \$wheel; done"' \
    "${base##*-}" "$folder/base.tar"
  printf 'FROM scratch\nADD base.tar /\n' |
    buildah "${store[@]}" bud --isolation chroot --tag "localhost/$base" --file - "$folder"
fi

# The machine's certificates, where it has its own, are mounted for the build; they are no part of the image.
certificates=/etc/ssl/certs/ca-certificates.crt
bundle=${SSL_CERT_FILE:-$certificates}
mounts=()
test ! -e "$bundle" || mounts=(--volume "$bundle:$certificates:ro")
buildah "${store[@]}" bud --isolation chroot --pull-never --network host --layers "${mounts[@]}" --tag m2m-verifier .
