#!/usr/bin/env bash
# Exchanges weights with timm, transformers and ONNX Runtime, in an environment of its own:
#
#     tests/interop/run.sh
#
# SIMMIM_INTEROP_VENV=FOLDER uses (or makes) an environment elsewhere, and SIMMIM_INTEROP_WHEEL=FILE.whl a package that is
# built already. PyTorch takes gigabytes and the package minutes; the checks themselves take a few minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${SIMMIM_INTEROP_VENV:-target/interop-venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
python=$venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check -r tests/interop/requirements.txt
"$python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "${SIMMIM_INTEROP_WHEEL:-.}"
for check in check_imports check_exports check_onnx check_docs; do
    echo "── $check"
    "$python" "tests/interop/$check.py"
done
