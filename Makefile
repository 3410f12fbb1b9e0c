# Everything one does here. Each target sets up what it needs: a virtual environment at .venv, and for the tests real peers
# from Debian's packages in .peers. A fresh machine needs git, make and Python 3.11 or newer with its venv module.

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help venv peers demo compile test test-compiled fuzz chaos check format try-systemd try-docker try-kubernetes bench bench-quick docs dist sbom clean

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || grep '##' Makefile

venv: .venv/stamp  ## the virtual environment, with what constraints.txt pins

.venv/stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ echo "no venv module here: install python3-venv" >&2; rm -rf .venv; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

peers: .peers/stamp  ## the real programs of the tests, unpacked into .peers

# Where there is no apt the script says so and leaves no stamp: the tests name what they leave out.
.peers/stamp: tools/peers.sh
	tools/peers.sh .peers

demo: .venv/stamp  ## the main job on real data, for DEMO_SECONDS (20)
	$(BIN)/python demo/run.py

# Tests of real processes wait more than they work, so three run side by side; those that judge times get the machine alone.
test: .venv/stamp .peers/stamp  ## all tests
	$(PYTEST) -n 2 --dist loadgroup -m 'not system' -q
	$(PYTEST) -n 3 --dist worksteal -m 'system and not timing' -q
	$(PYTEST) -m 'system and timing' -q

# The compiled build stays out of the tree: an extension beside a source that was edited since would be run in its place.
compile: build/compiled/stamp  ## the same in C where every push passes, into build/compiled (two minutes; a C compiler)

build/compiled/stamp: .venv/stamp setup.py $(shell find shared cloud_relay connector_agent -name '*.py')
	rm -rf build
	QANAT_COMPILE=1 PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --target build/compiled .
	@PYTHONPATH=build/compiled $(BIN)/python -P -c 'import shared.tunnel.link as m; assert m.__file__.endswith(".so"), m'
	@touch $@

test-compiled: compile  ## the tests of the three packages and of real processes, against the compiled build
	PYTHONPATH=build/compiled $(PYTEST) -o pythonpath='build/compiled .' -n 2 --dist loadgroup -m 'not system' -q \
		tests/shared tests/cloud_relay tests/connector_agent
	QANAT_BUILD=$(CURDIR)/build/compiled $(PYTEST) -n 3 --dist worksteal -m 'system and not timing' -q

# Coverage-guided: what reads bytes from outside may refuse them, and nothing else.
fuzz: .venv/stamp  ## fuzz every parser for FUZZ_SECONDS (60) each; FUZZ_TARGETS names some of them
	$(BIN)/python -m fuzz --seconds $(or $(FUZZ_SECONDS),60) $(FUZZ_TARGETS)

# Without any of the variables every fault is played once. A failed run tells how to play it again. CHAOS_RECORD=1 makes a good
# session the one in docs/operations.md.
chaos: .venv/stamp .peers/stamp  ## faults with a ledger: CHAOS_RUNS=200, CHAOS_SECONDS=60, CHAOS_SEED=7, CHAOS_FAULT=kill-relay
	$(BIN)/python -m chaos $(if $(CHAOS_RUNS),--runs $(CHAOS_RUNS)) $(if $(CHAOS_SECONDS),--seconds $(CHAOS_SECONDS)) \
		$(if $(CHAOS_SEED),--seed $(CHAOS_SEED)) $(if $(CHAOS_AGAIN),--again $(CHAOS_AGAIN)) \
		$(if $(CHAOS_FAULT),--fault $(CHAOS_FAULT)) $(if $(CHAOS_RECORD),--record)

check: .venv/stamp  ## ruff, mypy, the direction of imports, generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/errors_doc.py --check
	$(BIN)/python -m tools.metrics_doc --check
	$(BIN)/python tools/dashboard.py --check
	$(BIN)/python -m chaos.docs --check
	$(BIN)/python -m benchmarks.page --check

format: .venv/stamp  ## lay out the code, sort the imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/stamp  ## the generated documents
	$(BIN)/python tools/errors_doc.py
	$(BIN)/python -m tools.metrics_doc
	$(BIN)/python tools/dashboard.py
	$(BIN)/python -m chaos.docs
	$(BIN)/python -m benchmarks.page

# As root, with debootstrap and systemd-container from Debian; in TRIAL_FOLDER (/var/tmp/qanat-systemd-trial).
try-systemd: .venv/stamp  ## both programs under a real systemd in a machine of its own; TRIAL_SUITE is Debian's (bookworm)
	$(BIN)/python -m tests.deploy.systemd_trial --suite $(or $(TRIAL_SUITE),bookworm) \
		--folder $(or $(TRIAL_FOLDER),/var/tmp/qanat-systemd-trial)

# As root, with debootstrap from Debian; in TRIAL_FOLDER (/var/tmp/qanat-docker-trial). TRIAL="--part image --only drain".
try-docker: .venv/stamp  ## the Compose file and the image under a real Docker of its own; TRIAL_SUITE=trixie is a newer one
	$(BIN)/python -m tests.deploy.docker_trial --suite $(or $(TRIAL_SUITE),bookworm) \
		--folder $(or $(TRIAL_FOLDER),/var/tmp/qanat-docker-trial) $(TRIAL)

# As root, with Go, and from Debian containerd, runc, containernetworking-plugins, iptables, ipset and conntrack. The first time
# it compiles Kubernetes, for a quarter of an hour, into .kubernetes. IMAGE is what `docker save qanat` wrote.
try-kubernetes: .venv/stamp  ## both sides in a real Kubernetes of one node; IMAGE=qanat.tar
	tools/kubernetes.sh .kubernetes
	$(BIN)/python -m tests.deploy.kubernetes_trial --image $(or $(IMAGE),qanat.tar) \
		--folder $(or $(TRIAL_FOLDER),/var/tmp/qanat-kubernetes-trial)

# Where BENCH says nothing else: everything, about half an hour, on a machine that does nothing else meanwhile. BENCH="--group small --merge"
# measures one group and keeps the others' figures; what was measured before an interruption is kept too.
bench: .venv/stamp .peers/stamp build/compiled/stamp  ## every measurement, against the peers; BENCH="--group small --merge" for a part
	$(BIN)/python -m benchmarks $(BENCH)

bench-quick: .venv/stamp .peers/stamp  ## the same, short: a smoke test with figures
	$(BIN)/python -m benchmarks --quick $(BENCH)

dist: .release/stamp  ## the wheel, looked through, and installed once for a trial, into dist/
	rm -rf dist .release/run
	PIP_CONSTRAINT=constraints.txt .release/bin/python -m build --outdir dist .
	$(PYTHON) -m venv .release/run
	.release/run/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	.release/run/bin/python -m pip --quiet uninstall --yes pip setuptools 2>/dev/null
	$(PYTHON) tools/dist.py wheel dist/*.whl .release/run

# What the wheel stands on when it is installed, as a CycloneDX document that its own schema has judged.
sbom: dist  ## the packages that come along with the wheel, as dist/qanat.cdx.json (CycloneDX)
	.release/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --sv 1.6 \
		--output-reproducible --validate --output-file dist/qanat.cdx.json .release/run
	$(PYTHON) tools/dist.py sbom dist/qanat.cdx.json constraints.txt

.release/stamp: constraints.txt
	@test -x .release/bin/python || $(PYTHON) -m venv .release
	.release/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build cyclonedx-bom
	@touch $@

clean:  ## everything that can be made again
	rm -rf .venv .peers .release build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .fuzz .chaos
