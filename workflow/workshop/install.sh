#!/bin/sh
# Sets up mixsup/.venv from the packages in wheelhouse/. No network is used.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}

found=$("$PYTHON" -c 'import platform, sys; print(platform.system(), platform.machine(), "%d.%d" % sys.version_info[:2])')
if [ "$found" != "@SYSTEM@ @MACHINE@ @PYTHON@" ]; then
  echo "These packages are for @SYSTEM@ @MACHINE@ with Python @PYTHON@; $PYTHON is: $found."
  echo "With another Python installed, name it: PYTHON=python@PYTHON@ sh install.sh"
  exit 2
fi
"$PYTHON" -m venv mixsup/.venv || { echo "On Debian and Ubuntu: sudo apt install python@PYTHON@-venv"; exit 1; }

echo "Installing into mixsup/.venv (a minute or two)"
PIP_CONFIG_FILE=/dev/null mixsup/.venv/bin/python -m pip --quiet --disable-pip-version-check install \
  --no-index --find-links "$PWD/wheelhouse" --editable "./mixsup[test]"
touch mixsup/.venv/.installed-cpu
cd mixsup
.venv/bin/python -m mixsup_lib doctor

start="make lab"
if command -v nvidia-smi >/dev/null 2>&1; then start="make TORCH=cpu lab"; fi
if ! command -v make >/dev/null 2>&1; then start=".venv/bin/jupyter lab notebooks"; fi
echo "Start with: cd $(pwd) && $start"
