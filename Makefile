# Everything CI does is a target here, and every target works from a fresh checkout,
# as root or as a user who may sudo. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
IMAGEDIR ?= /usr/share/mydocker/images
export CARGO_TERM_COLOR ?= auto

# .cargo/config.toml names the target, so artefacts lie below its triple. Without rustc at hand
# (`sudo make install` after a build by the user) the machine's own triple is what was built.
TRIPLE := $(or $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p'),$(shell uname -m)-unknown-linux-gnu)
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
BIN := $(TARGET_DIR)/$(TRIPLE)/release/mydocker
IMAGE := images/busybox.tar

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Containers need root; cargo does not. For a user, only the test programs run through sudo.
RUNNER := CARGO_TARGET_$(shell echo '$(TRIPLE)' | tr 'a-z-' 'A-Z_')_RUNNER
ROOT_TESTS := $(if $(SUDO),env $(RUNNER)='sudo -E')

# A package is installed when the program it brings is missing: dpkg is not asked, so that a
# machine that has the program from elsewhere is left alone. (Debian's own busybox is dynamic and
# of no use in an image; busybox-static takes its place.)
NEEDS := busybox:busybox-static iptables:iptables ip:iproute2 tar:tar cc:gcc ld:binutils
NEEDS_BENCH := crun:crun python3:python3 unshare:util-linux iperf3:iperf3 docker-registry:docker-registry \
    skopeo:skopeo umoci:umoci podman:podman dockerd:docker.io debootstrap:debootstrap igzip:isal curl:curl
NEEDS_TEST := strace:strace dig:dnsutils nsenter:util-linux docker-registry:docker-registry skopeo:skopeo \
    umoci:umoci podman:podman dockerd:docker.io htpasswd:apache2-utils openssl:openssl curl:curl python3:python3 \
    zstd:zstd setfattr:attr setcap:libcap2-bin
NEEDS_VM := qemu-system-x86_64:qemu-system-x86 mkfs.ext4:e2fsprogs modprobe:kmod systemctl:systemd

.PHONY: help demo test test-vm check build images deps install bench bench-images clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: build images ## build, then a shell in a busybox container (without a terminal: a transcript)
	@if [ -t 0 ] && [ -t 1 ]; then \
	    echo '# mydocker run --rm -it busybox sh'; \
	    $(SUDO) $(BIN) run --rm -it busybox sh; \
	else \
	    $(SUDO) bash tests/demo.sh $(BIN); \
	fi

build: deps ## the release binary
	@command -v cargo >/dev/null || { \
	    echo 'make: cargo is missing. Install Rust (the toolchain installer is rustup), then run make again' >&2; exit 1; }
	cargo build --release --locked

images: deps ## images/busybox.tar, made from Debian's busybox-static
	sh images/busybox.sh

test: NEEDS += $(NEEDS_TEST) $(NEEDS_VM)
test: deps images ## unit, golden and end-to-end tests (as root), the leak check; test-vm
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	$(ROOT_TESTS) cargo test --locked --no-fail-fast 2>&1 | tee "$$log"; \
	if [ "$${CI:-}" = true ] && grep -E '^test result:.* [1-9][0-9]* ignored' "$$log"; then \
	    echo 'make: a skipped test is a failure in CI' >&2; exit 1; \
	fi
	$(ROOT_TESTS) cargo test --locked --test leaks
	$(MAKE) --no-print-directory test-vm

test-vm: NEEDS += $(NEEDS_TEST) $(NEEDS_VM)
test-vm: deps images ## containers and cgroups on hosts with v1 and v2 alone, an older kernel, in emulation
	tests/vm/run

check: deps ## formatting, lints, architecture
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --test architecture

bench: NEEDS += $(NEEDS_BENCH)
bench: build images ## measure beside crun and the kernel (docker, podman where installed)
	$(SUDO) python3 tests/bench/bench.py --binary $(BIN) $(BENCH_ARGS)

bench-images: NEEDS += $(NEEDS_BENCH)
bench-images: build images ## measure pull, save, load and commit beside docker, podman, skopeo with umoci, plain tools
	$(SUDO) python3 tests/bench/images.py --binary $(BIN) $(BENCH_ARGS)

install: ## binary to $(DESTDIR)$(PREFIX)/bin, images to $(DESTDIR)$(IMAGEDIR)
	[ -x $(BIN) ] || $(MAKE) build
	[ -f $(IMAGE) ] || $(MAKE) images
	install -D -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/bin/mydocker
	install -D -m 0644 $(IMAGE) $(DESTDIR)$(IMAGEDIR)/busybox.tar

clean: ## remove what was built; containers and their data are not touched
	rm -f images/*.tar
	if command -v cargo >/dev/null; then cargo clean; else rm -rf $(TARGET_DIR); fi

deps: ## what is missing on this machine, through apt
	@export PATH="$$PATH:/usr/sbin:/sbin"; missing=; \
	for need in $(NEEDS); do command -v "$${need%%:*}" >/dev/null || missing+=" $${need##*:}"; done; \
	if path=$$(command -v busybox) && ldd "$$path" >/dev/null 2>&1; then missing+=' busybox-static'; fi; \
	[ -n "$$missing" ] || exit 0; \
	command -v apt-get >/dev/null || { echo "make: please install:$$missing" >&2; exit 1; }; \
	echo "==> installing$$missing"; \
	$(SUDO) apt-get update -qq; \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing
