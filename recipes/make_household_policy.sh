#!/usr/bin/env bash
# Remakes the policy in src/paw/policies/household from the household's expert: about 3 minutes of
# one CPU core. One thread, so that the same versions on the same kind of processor give the same
# bytes; PROVENANCE.json beside the weights holds the command, commit, seed and hash.
set -euo pipefail
cd "$(dirname "$0")/.."
made=$(mktemp -d)/household
OMP_NUM_THREADS=1 paw imitate recipes/household_policy.toml --imitate.output "$made"
target=src/paw/policies/household
cp "$made"/{model.safetensors,config.json,generation_config.json} "$target"
cp "$made"/{tokenizer.json,tokenizer_config.json,chat_template.jinja} "$target"
python - "$made" "$target" <<'PY'
import hashlib, json, sys
from pathlib import Path

made, target = map(Path, sys.argv[1:])
report = json.loads((made / "imitate.json").read_text())
weights = (target / "model.safetensors").read_bytes()
last = report["evaluations"][-1]
provenance = {
    "command": "recipes/make_household_policy.sh",
    "commit": report["commit"],
    "seed": report["seed"],
    "steps": report["steps"],
    "parameters": report["parameters"],
    "success_rate": last["success_rate"],
    "interval": last["interval"],
    "split": last["split"],
    "num_episodes": last["num_episodes"],
    "versions": report["versions"],
    "sha256": {"model.safetensors": hashlib.sha256(weights).hexdigest()},
}
(target / "PROVENANCE.json").write_text(json.dumps(provenance, indent=1) + "\n")
print(json.dumps(provenance, indent=1))
PY
