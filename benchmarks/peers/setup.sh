#!/usr/bin/env bash
# Make the environments of the peers in .peers/ and install each from its package.
#
#   bash benchmarks/peers/setup.sh [rectools|replay|recbole ...]      # without names the first two
#
# PYTHON chooses the interpreter (3.10 to 3.12 suit both). On Linux, TORCH_INDEX_URL can name an
# index with CPU builds of PyTorch, e.g. https://download.pytorch.org/whl/cpu, to save gigabytes.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
torch="torch>=2.4,<2.14"
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(rectools replay)

for name in "${names[@]}"; do
  case "$name" in
    rectools) packages=("rectools[torch]>=0.19,<0.20") ;;
    replay) packages=("replay-rec[torch]>=0.22,<0.23") ;;
    # RecBole 1.2 does not start with newer releases of the last three (pkg_resources, np.bool8).
    recbole) packages=("recbole>=1.2,<1.3" "setuptools<81" "numpy<2" "pandas<3") ;;
    *) echo "unknown peer: $name (there are rectools, replay, recbole)" >&2; exit 2 ;;
  esac
  home="$root/.peers/$name"
  "${PYTHON:-python3}" -m venv "$home"
  "$home/bin/python" -m pip install --quiet ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$torch"
  "$home/bin/python" -m pip install --quiet "${packages[@]}" "$torch"
  "$home/bin/python" -m pip freeze >"$home/freeze.txt"
  echo "$name: $home"
done
