# Every target sets itself up: Linux, Python 3.11 and make are enough, as root or as an ordinary user.
.POSIX:
.PHONY: help demo demo-clean test test-long bench lock reference clean

help:
	@echo "make demo        tell the whole story on this machine"
	@echo "make demo-clean  stop and remove what the demo made"
	@echo "make test        lint, types, contracts and every test; the same that CI runs"
	@echo "make test-long   the campaigns that take minutes or more"
	@echo "make bench       measure beside other tools (see bench/)"
	@echo "make lock        write requirements/*.txt anew from pyproject.toml"
	@echo "make reference   write the generated pages of docs/reference anew"
	@echo "make clean       remove the environment and every cache"

demo:
	@scripts/environment demo
	@.venv/bin/exclave demo

demo-clean:
	@scripts/environment demo
	@.venv/bin/exclave demo --clean

test:
	@scripts/environment test
	@scripts/checks

test-long:
	@scripts/environment test
	.venv/bin/pytest -m long --hypothesis-profile=long --timeout=0

bench:
	@scripts/environment bench
	.venv/bin/python bench/peers.py

lock:
	@scripts/environment lock
	scripts/lock .venv/bin/python

reference:
	@scripts/environment test
	.venv/bin/python scripts/reference.py

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
