#!/bin/sh
# Names what is missing on a fresh machine, all at once, with the line that installs it. $1: the Python to use.
python=${1:-python3}
missing=""
say() { printf '%s\n' "$*" >&2; }
has() { "$python" -c "$1" 2>/dev/null; }
has 'import sys; sys.exit(sys.version_info < (3, 10))' || missing="$missing python3"
has 'import venv, ensurepip' || missing="$missing python3-venv"
has 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
  || missing="$missing python3-dev"
command -v make >/dev/null 2>&1 || missing="$missing make"
if [ -n "${CXX:-}" ]; then
  # shellcheck disable=SC2086  # CXX may carry options, or a ccache before it
  set -- $CXX
  command -v "$1" >/dev/null 2>&1 || {
    say "CXX names a compiler that is not here / CXX 指定的编译器不存在: $1"
    say "  → unset CXX, or install it / 取消 CXX 设置，或安装该编译器"
    exit 2
  }
else
  command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || missing="$missing g++"
fi
if [ -n "$missing" ]; then
  say "missing / 缺少:$missing (Python 3.10 or newer is needed / 需要 Python 3.10 或更高版本; PYTHON=$python)"
  say "  → Debian, Ubuntu: sudo apt-get install$missing"
  exit 2
fi
