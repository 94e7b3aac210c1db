#!/usr/bin/env bash
# The experiments of docs/EVIDENCE.md, one at a time; the same command goes on where it stopped:
#   bash recipes/evidence.sh household | starts | alfworld | alfworld-joint | algorithms |
#                            webshop | search_qa | rho | alpha
# JOBS (default 2) runs at a time, one thread each; EVIDENCE (default runs/evidence) is where they go.
# docs/evidence/NAME/runs has what finished runs showed: copied into $EVIDENCE/NAME, they are not made again.
# ALFWORLD_DATA, WEBSHOP_DATA and SEARCH_QA_DATA name the benchmarks' folders.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${EVIDENCE:-runs/evidence}
compare() { # NAME, then arguments
  local name=$1
  shift
  paw compare "$@" --output "$out/$name" --jobs "${JOBS:-2}" --run.threads 1 --model.share_prefixes true
}
starts="$out/starts"
household=(--run.updates 80 --eval.every 20)
case ${1:-} in
household)
  compare household "${household[@]}" --seeds 10 \
    --arms baseline,paw,echo,tapo,constant,decay,placebo_shuffled,placebo_vocabulary,no_action
  ;;
starts) # warm starts that have never learnt an observation
  imitate() { # RECIPE, OUTPUT, then arguments
    paw imitate "recipes/$1_small_policy.toml" --imitate.observation_weight 0 \
      --imitate.output "$starts/$2" "${@:3}"
  }
  imitate alfworld alfworld_action # shipped as recipes/policies/alfworld_small_action
  python recipes/search_qa_small_data.py "$SEARCH_QA_DATA" runs/search_qa_small_data
  imitate search_qa search_qa_action # shipped as recipes/policies/search_qa_small_action
  imitate webshop webshop_action_1
  imitate webshop webshop_action --imitate.from_scratch false --model.path "$starts/webshop_action_1" \
    --imitate.steps 450 --imitate.final_learning_rate 2e-4 --run.seed 1
  ;;
alfworld | alfworld-joint)
  start=recipes/policies/alfworld_small
  [ "$1" = alfworld-joint ] || start+=_action
  compare "$1" recipes/alfworld_small.toml --model.path "$start" --seeds 10 \
    --eval.every 50 --eval.episodes 560 --arms baseline,paw,echo,placebo_shuffled
  ;;
algorithms)
  for name in gigpo rloo ppo; do
    compare "household-$name" "${household[@]}" --seeds 6 --arms baseline,paw --algorithm.name "$name"
  done
  ;;
webshop | search_qa) # search_qa: after search_qa_small_data.py, as above
  start="$starts/webshop_action"
  [ "$1" = webshop ] || start=recipes/policies/search_qa_small_action
  compare "$1" "recipes/$1_small.toml" --model.path "$start" --seeds 3 --arms baseline,paw,placebo_shuffled
  ;;
rho)
  compare rho "${household[@]}" --seeds 3 --arm-file recipes/arms/sweeps.toml \
    --arms baseline,paw,rho_05,rho_10,rho_40,rho_80
  ;;
alpha)
  compare alpha "${household[@]}" --seeds 3 --arm-file recipes/arms/sweeps.toml \
    --arms baseline,paw,alpha_10,alpha_25,alpha_50,alpha_100
  ;;
*)
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
