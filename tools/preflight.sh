#!/bin/sh
# Names what is missing on a fresh machine, with the line that installs it.
python=${1:-python3}
missing=""
say() { printf '%s\n' "$*" >&2; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || missing="$missing python3"
"$python" -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null \
  || missing="$missing python3-dev"
command -v "${CXX:-c++}" >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || missing="$missing g++"
command -v make >/dev/null 2>&1 || missing="$missing make"
if [ -n "$missing" ]; then
  say "missing / 缺少:$missing (Python 3.10 or newer is needed / 需要 Python 3.10 以上)"
  say "  → Debian, Ubuntu: sudo apt-get install$missing"
  exit 2
fi
