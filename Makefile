# Thin: each target calls the script that does the work, and that can be run by hand as well.

.DEFAULT_GOAL := help
.PHONY: help build test demo bench bench-seeds bench-stores setup cross ipk size clean

help: ## this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## sliverfs for this machine: target/release/sliverfs
	cargo build --release --locked

test: ## everything: sets a Debian machine up, then all checks and tests (root)
	tests/check

demo: ## ten slivers on one Debian base, one of them booted, and what that saved (Debian, root)
	tests/demo

bench: ## the promised figures, measured, to docs/benchmarks.md; BENCH=quick measures less and writes nothing (Debian, root)
	tests/bench/run $(BENCH)

bench-seeds: ## every way to a sliver beside what is typed by hand, to docs/seeds.md and plots; BENCH=quick as above (Debian, root)
	tests/bench/run seeds $(BENCH)

bench-stores: ## work on stores beside rsync and tar, to docs/stores.md and plots; BENCH=quick as above (Debian, root)
	tests/bench/run stores $(BENCH)

setup: ## what building for routers needs, where it is missing (Debian, root)
	cross/setup

cross: setup ## sliverfs for every router target: dist/bin/TARGET/sliverfs
	cross/build

ipk: cross ## a package and a feed of opkg for each architecture: dist/feed/ARCH
	openwrt/build-feeds

size: ipk ## the size of every package beside its budget
	cross/size

clean: ## removes what was built; the tool chain in .venv stays
	rm -rf dist
	cargo clean
