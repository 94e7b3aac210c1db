#!/usr/bin/env bash
# Carries packages to a machine with a GPU and torch but without a network, for benchmarks/gpu.py.
#
#   benchmarks/gpu_wheels.sh                       # here: msgspec and zstandard into .wheels
#   PYTHON_VERSION=3.12 benchmarks/gpu_wheels.sh msgspec zstandard transformers==5.23.0 ...
#   benchmarks/gpu_wheels.sh install               # there: .wheels into .wheels/site
#   PYTHONPATH=src:.wheels/site python3 benchmarks/gpu.py -o gpu.json
#
# Packages come without what they depend on, so torch stays the one that is there; name those too.
# .wheels is ignored by git. It may hold 64 MiB.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=.wheels
if [ "${1:-}" = install ]; then
  exec python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$folder/site" "$folder"/*.whl
fi
[ $# -gt 0 ] || set -- msgspec zstandard
rm -rf "$folder"
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux_2_5 manylinux1; do
  platforms+=(--platform "${tag}_x86_64")
done
python3 -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
  --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" --dest "$folder" "$@"
ls -l "$folder"
[ "$(du -sm "$folder" | cut -f1)" -le 64 ] || { echo "more than 64 MiB" >&2; exit 1; }
