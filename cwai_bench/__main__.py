"""``python -m cwai_bench``: the command, where its script is not on PATH (ranks on other nodes)."""

from cwai_bench.cli.main import entry

if __name__ == "__main__":
    raise SystemExit(entry())
