#!/usr/bin/env bash
# An environment for the tests of an integration, which sees that of the project (.venv) and holds
# only what is missing there: integrations pin versions that exclude each other. Prints its python:
#   python=$(tests/integrations/environment.sh trl==1.8.0 jmespath requests)
#   $python -m pytest -m trl tests/integrations
# CONSTRAINTS=/dev/null lifts the pins of constraints.txt where an integration has others; UNINSTALL
# names what pip brings along and must not be there.
set -euo pipefail
cd "$(dirname "$0")/../.."
own=$PWD/.venvs/$(printf '%s' "$*" | tr -cs '[:alnum:].\n' _)
if [ ! -e "$own/.installed" ]; then
  .venv/bin/python -m venv --clear --without-pip "$own"
  # A site, not a path: the project itself is found by a .pth file there.
  .venv/bin/python - "$own" <<'PY'
import glob, sys, sysconfig
(site,) = glob.glob(f"{sys.argv[1]}/lib/python*/site-packages")
with open(f"{site}/project.pth", "w") as file:
    file.write(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
PY
  "$own/bin/python" -m pip install --quiet --disable-pip-version-check -c "${CONSTRAINTS:-constraints.txt}" "$@" >&2
  [ -z "${UNINSTALL:-}" ] || "$own/bin/python" -m pip uninstall --quiet --yes $UNINSTALL >&2
  touch "$own/.installed"
fi
echo "$own/bin/python"
