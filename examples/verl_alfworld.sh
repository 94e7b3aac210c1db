#!/usr/bin/env bash
# Trains on ALFWorld with verl: ALFWORLD_DATA=DIR examples/verl_alfworld.sh [key=value …]
# For example the baseline: paw.enabled=false; another algorithm: algorithm.adv_estimator=gigpo
set -euo pipefail
export VERL_USE_EXTERNAL_MODULES=paw.integrations.verl
exec python -m paw.integrations.verl \
    --config-path "$(cd "$(dirname "$0")" && pwd)" --config-name verl_alfworld "$@"
