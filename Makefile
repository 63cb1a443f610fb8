# Everything a developer types. `make` alone builds; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

# GOARCH=arm64 make install works: the program for another processor is built beside, and one for this machine writes manual pages and completions.
CROSS      := $(if $(and $(GOARCH),$(filter-out $(shell go env GOHOSTARCH),$(GOARCH))),$(GOARCH)/)
PROGRAM    := bin/$(CROSS)sallyport
HOST       := $(if $(CROSS),bin/host/sallyport,$(PROGRAM))
# The number is in buildinfo/buildinfo.go alone; this is what it is built from.
VERSION    := $(shell sed -n 's/^const Version = "\(.*\)"$$/\1/p' buildinfo/buildinfo.go)
REVISION   ?= $(shell git describe --always --exclude '*' --abbrev=12 --dirty 2>/dev/null)
LDFLAGS    := -s -w -X sallyport/buildinfo.revision=$(REVISION)
GO         ?= go
PREFIX     ?= /usr
UNITS      ?= /lib/systemd/system
FUZZTIME   ?= 10s
BENCHFLAGS ?=
STATICCHECK_VERSION := v0.8.2
# The tools that checks need are kept here, outside the tree.
TOOLS      ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sallyport-tools

.PHONY: build test lint fuzz generated unit test-cli story demo bench bench-short bench-distance bench-distance-short interop stall kafka mutants test-attacks install clean help vulncheck

build: ## build bin/sallyport, one static program (GOARCH=arm64: bin/arm64/sallyport)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(PROGRAM) ./cmd/sallyport

.PHONY: host
host: build
	$(if $(CROSS),env -u GOARCH -u GOARM CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(HOST) ./cmd/sallyport)

.PHONY: pkcs11
pkcs11: ## build bin/sallyport-pkcs11, which loads modules of PKCS#11 tokens; the only program with C
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags "-s -w" -o bin/sallyport-pkcs11 ./cmd/sallyport-pkcs11

.PHONY: aws-kms
aws-kms: ## build bin/sallyport-aws-kms, which speaks with AWS KMS for vaults that are there
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/sallyport-aws-kms ./cmd/sallyport-aws-kms

test: lint generated unit ## all checks and tests; the last lines are those of go test

lint: $(TOOLS)/staticcheck-$(STATICCHECK_VERSION) ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { echo "not gofmt: $$bad" >&2; exit 1; }
	$(GO) mod tidy -diff
	cd examples && $(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) vet -tags small ./...
	$(GO) vet -tags nopostgres ./...
	GOARCH=386 CGO_ENABLED=0 $(GO) vet ./...
	$< ./...

$(TOOLS)/staticcheck-$(STATICCHECK_VERSION):
	@mkdir -p $(TOOLS)
	env -u GOARCH -u GOARM GOBIN=$(TOOLS)/bin $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	@mv $(TOOLS)/bin/staticcheck $@

generated: ## the committed assembly is what its generator writes
	@if [ -f crypto/aead/_asm/check.sh ]; then sh crypto/aead/_asm/check.sh; fi

# An end of FUZZTIME while an input is made smaller is reported by go test as a failure without one, which it is not.
fuzz: ## new inputs for every fuzz target, FUZZTIME (10s) each; not part of test
	@bad=0; \
	while IFS=: read -r file target; do \
		package=$$(dirname "$$file"); echo "fuzz $$package $$target"; \
		log=$$($(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 3s "$$package" </dev/null 2>&1) || \
			{ ! grep -q 'Failing input' <<<"$$log" && grep -q 'context deadline exceeded' <<<"$$log"; } || { echo "$$log" >&2; bad=1; }; \
	done < <(grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/func //' | sort); \
	exit $$bad

unit: ## go test -race of every package, before it what is left out with the race detector
	$(GO) test -run '^TestARQCourse$$' ./routing/udp
	$(GO) test -race -timeout 25m ./...

test-cli: build ## the command line's tests: commands as typed, their output, their exit codes
	$(GO) test -count=1 -run CLI ./cmd/...

.PHONY: test-apply
test-apply: build ## edits of a configuration applied while connections are open: what --check said, what was done, connections lost
	$(GO) test -count=1 -run '^TestCLIApplyEdits$$' -v ./cmd/sallyport | grep -v '^=== '

story: ## the demo once, for machines: query, transfer, pgbench, then with network namespaces
	DEMO_MIB=256 DEMO_SECONDS=3 demo/run --once --pgbench --transfer
	if unshare --net --mount true 2>/dev/null; then demo/run --once --netns; else echo "no network namespaces here: --netns left out"; fi

demo: ## the story with a real PostgreSQL, until Ctrl-C (DEMO="--netns --pgbench --transfer")
	@demo/run $(DEMO) || [ $$? = 130 ]

bench: build ## whole paths against other programs, with a report to read (bench/results/paths.html), over two hours, then micro benchmarks; BENCH=medium: one run of everything but these with shorter windows, 15 minutes, added to the runs in bench/results/medium.json
	$(GO) run ./bench/paths --sallyport $(PROGRAM) $(if $(filter medium,$(BENCH)),--medium --runs 1 --add --json bench/results/medium.json --svg bench/results/medium.svg --html bench/results/medium.html,--json bench/results/paths.json --svg bench/results/paths.svg --html bench/results/paths.html) $(BENCHFLAGS)
	$(if $(filter medium,$(BENCH)),,$(GO) test -run '^$$' -bench . -benchmem ./...)

bench-short: build ## ours against plain proxies, less than a minute
	$(GO) run ./bench/paths --sallyport $(PROGRAM) --short $(if $(wildcard bench/results/short.json),--check bench/results/short.json) $(BENCHFLAGS)

.PHONY: bench-load
bench-load: build ## latency under load, sizes of messages, numbers of connections, with a report: ours beside plain proxies and the reference, an hour (BENCHFLAGS="--short --runs 3": five minutes)
	$(GO) run ./bench/paths --sallyport $(PROGRAM) --paths plain,reference,ours,ours-1ch --metrics load-echo,load-http,load-redis,load-query,load-tpcb,sizes,scale,members,credentials,handshakes,hops,nested,shards,hold,records,inlets \
		--json bench/results/load.json --html bench/results/load.html $(BENCHFLAGS)

.PHONY: bench-members
bench-members: build ## what 100 to 10,000 members cost, and how fast they are back, with a drawing; then 2,000 outlets and 5,000 inlets on three relays (needs PostgreSQL); two hours, 18 GiB of memory; BENCHFLAGS=-continue goes on after an interruption
	$(GO) run ./bench/members -bin $(PROGRAM) -n 100,300,1000,3000,6000,10000 -json bench/results/members.json -svg docs/members.svg $(BENCHFLAGS)
	$(GO) run ./bench/members -bin $(PROGRAM) -n 2000 -relays 3 -outlets 2000 -inlets 5000 -json bench/results/members.json $(BENCHFLAGS)

.PHONY: profile
profile: LDFLAGS = -X sallyport/buildinfo.revision=$(REVISION)
profile: build ## flame graphs of each node under each load, and where the time goes beside what the machine can do: needs perf
	$(GO) run ./bench/paths --sallyport $(PROGRAM) --paths ours --metrics profile --runs 1 --profiles bench/results/profile $(BENCHFLAGS)

.PHONY: bench-hold
bench-hold: build ## CPU for a byte with connections that outlive their path, and with --hold 0s, in turn
	$(GO) run ./bench/paths --sallyport $(PROGRAM) --paths ours,ours-nohold --metrics up,down --runs 9 $(BENCHFLAGS)

.PHONY: bench-records
bench-records: build ## new connections and requests with records of connections, and with --records off, in turn
	$(GO) run ./bench/paths --sallyport $(PROGRAM) --paths ours,ours-norecords --metrics rate,conns --runs 9 $(BENCHFLAGS)

.PHONY: bench-kafka
bench-kafka: build ## Kafka's own measuring programs with a real broker: directly, through portals, and through portals that encrypt
	interop/kafka --ours $(PROGRAM) --perf 500000

bench-distance: build ## whole paths over 1 to 300 ms, loss and slow lines, in network namespaces: as root, an hour for each run
	$(GO) run ./bench/distance --sallyport $(PROGRAM) --json bench/results/distance.json --svg docs/distance.svg $(BENCHFLAGS)

bench-distance-short: build ## two distances, a minute; fails where ours is far behind plain proxies
	@if unshare --net true 2>/dev/null && [ -c /dev/net/tun ]; then \
		$(GO) run ./bench/distance --sallyport $(PROGRAM) --short --paths plain,ours --time 3s $(BENCHFLAGS); \
	else echo "no network namespaces or no /dev/net/tun here: left out"; fi

interop: build ## ours and the reference in every seat, and beyond; installs the reference first (20 minutes, once)
	@reference=$$(interop/install-reference); $(GO) run ./interop --ours $(PROGRAM) --reference "$$reference" $(or $(INTEROP),--all)

test-faults: build ## whole nodes under load, broken one thing after the other (an hour and a half; SHORT=1: less than five minutes; SOAK=15m, ONLY=WORD); needs root
	$(GO) run ./bench/faults --sallyport $(PROGRAM) $(if $(SHORT),--short) $(if $(SOAK),--soak $(SOAK)) $(if $(ONLY),--only "$(ONLY)")

.PHONY: test-fleet
test-fleet: build ## three relays, three authorities, two outlets and their databases killed one after the other under load: a table of failed transactions, refused enrolments and seconds until normal (four minutes; SHORT=1: two; ONLY=WORD); installs PostgreSQL
	demo/fleet --no-build $(if $(SHORT),--short) $(if $(ONLY),--only $(ONLY))

.PHONY: test-trust trust-tools
# A line for each point: what it is, then the seconds or bytes that its test measured.
TRUST_TESTS := ^(TestTrust|TestMemberIsTakenBack$$|TestOperatorPosesAsTheBank$$|TestShortCredentials$$|TestAuditChain$$|TestGuessesDoNotFillTheTrail$$|TestRevocations$$|TestTokens$$|TestSnapshotUnderLoad$$|TestRestored$$|TestDamage$$|TestStrangeArchives$$|TestRestoreInterrupted$$|TestCopyAndRestore$$|TestAuthorityRotates$$|TestInfluxDB$$)
test-trust: build trust-tools ## members taken back, the operator's attack, keys, sign-ins, backups, the trail: what was measured, a line for each (15 minutes)
	$(GO) test -count=1 -timeout 15m -v -run '$(TRUST_TESTS)' ./authority/... ./backup ./crypto/... ./node ./state ./cmd/... | \
		awk '/^=== /{next} /^ *--- |^ +[a-z_]+_test\.go:[0-9]+: |^(ok|FAIL|panic)/{print} /^FAIL|^--- FAIL|^panic/{bad=1} END{exit bad}'
	@reference=$(HOME)/.cache/reference/bin/ockam; if [ -x "$$reference" ]; then $(GO) run ./interop --ours $(PROGRAM) --reference "$$reference" --rows --group member-expiry; \
	else echo "the reference is not installed (make interop does): its members with short credentials are left out"; fi

trust-tools: ## what the tests of keys need, where it can be installed: SoftHSM2, swtpm, moto
	@command -v softhsm2-util >/dev/null && command -v swtpm >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -q >/dev/null && apt-get install -y --no-install-recommends softhsm2 swtpm >/dev/null; } || \
		echo "softhsm2 or swtpm cannot be installed here: the tests that need them are left out"
	@command -v moto_server >/dev/null || pip install --quiet 'moto[server,kms]' || echo "moto cannot be installed here: the tests that need it are left out"

.PHONY: test-reach reach-tools
# A line for each point: what it is, then the seconds that its test measured.
REACH_TESTS := ^TestReach
# What counts, aligns and allocates differently on 32 bits, as the processor runs it.
REACH_386   := ./crypto/channel ./routing ./routing/tcp ./routing/udp ./routing/secure ./portal ./portal/datagram ./client
test-reach: build small small-386 small-arm reach-tools ## through real servers in front and real proxies: nginx, haproxy, tinyproxy, squid, danted (5 minutes)
	$(GO) test -count=1 -timeout 15m -v -run '^Test(Proxies|SOCKSUser|SilentProxy|Rules)$$' ./proxy | grep -v '^=== '
	$(GO) test -count=1 -timeout 15m -v -run '^Test(Layers|TLSNames|OtherWebSocket|WebPages|Pings|SilentHandshakes)$$' ./routing/tcp | grep -v '^=== '
	$(GO) test -count=1 -timeout 15m -v -run '^Test(Conn|HTTP|Refusals|BrokenOff|Messages|WithoutProject|CloseEndsAll|FromAnotherModule|HalfCloseBoth|ClosedConn|ClosedClient|Contexts|FirstGivesUp|BadTickets|TwoOfOneDirectory|ManyDials|FailuresLeaveNothing)$$' ./client | grep -E '^(---|ok|FAIL|panic)'
	$(GO) test -count=1 -timeout 15m -v -run '^Test(ProxyProtocol.*|UnixSockets)$$' ./node | grep -E '^ *(---|ok|FAIL|panic)'
	cd examples && $(GO) test -count=1 -timeout 15m -v ./... | grep -E '^ *(---|ok|FAIL|panic|[a-z_]+_test\.go)'
	$(GO) test -count=1 -tags small -v ./config | grep -E '^ *(---|ok|FAIL|panic)'
	@case $$(uname -m) in x86_64|i?86) echo "386"; GOARCH=386 CGO_ENABLED=0 $(GO) test -count=1 -p 1 -timeout 30m $(REACH_386);; *) echo "no x86 here: tests for 386 are left out";; esac
	SALLYPORT_SMALL=$(abspath bin/sallyport-small) SALLYPORT_SMALL_386=$(abspath bin/sallyport-small-386) SALLYPORT_SMALL_ARM=$(abspath bin/sallyport-small-arm) $(GO) test -count=1 -timeout 15m -v -run '$(REACH_TESTS)' ./cmd/... ./node/acme | \
		awk '/^=== /{next} /^ *--- |^ +[a-z_]+_test\.go:[0-9]+: |^(ok|FAIL|panic)/{print} /^FAIL|^--- FAIL|^panic/{bad=1} END{exit bad}'

# A call that is not inlined takes less room than what is: a small program has none of that but where data passes, and what is called there.
SMALL_FAST  := runtime/... internal/... sync/... syscall bytes strings slices encoding/binary math/bits crypto/internal/... crypto/cipher crypto/subtle crypto/aes \
	golang.org/x/crypto/... golang.org/x/sys/... github.com/cloudflare/... github.com/flynn/... $(addprefix sallyport/,dataplane/... routing/... portal/... crypto/... records)
# Its servers and clients of HTTP speak version 1.1 alone; what portals carry does not pass there.
SMALL_BUILD := CGO_ENABLED=0 $(GO) build -tags small,nethttpomithttp2 -trimpath -gcflags=all=-l $(patsubst %,-gcflags=%=,$(SMALL_FAST)) -ldflags "$(LDFLAGS)"
.PHONY: small small-386 small-arm
small: ## a smaller program for small machines, bin/sallyport-small: members and relays without what docs/limits.md lists
	$(SMALL_BUILD) -o bin/sallyport-small ./cmd/sallyport
small-386 small-arm: small-%:
	GOARCH=$* GOARM=6 $(SMALL_BUILD) -o bin/sallyport-small-$* ./cmd/sallyport

.PHONY: cross
cross: ## small machines: everything compiles and vets for linux on ARMv6, 386 and MIPS; what has tests without sockets runs where qemu-user is
	@for arch in arm 386 mipsle; do echo "$$arch"; GOARCH=$$arch GOARM=6 CGO_ENABLED=0 $(GO) build ./... && GOARCH=$$arch GOARM=6 CGO_ENABLED=0 $(GO) vet ./...; done
	@if command -v qemu-arm >/dev/null; then GOARCH=arm GOARM=6 CGO_ENABLED=0 $(GO) test -p 1 -exec qemu-arm ./portal/proxyproto ./routing/bare ./policy ./project; \
	else echo "no qemu-arm here: tests for ARM are left out"; fi

reach-tools: ## what its tests need, where it can be installed
	@for t in nginx haproxy tinyproxy squid danted; do PATH=$$PATH:/usr/sbin command -v $$t >/dev/null || missing=1; done; [ -z "$${missing-}" ] || \
		{ [ "$$(id -u)" = 0 ] && apt-get update -q >/dev/null && apt-get install -y --no-install-recommends nginx-light haproxy tinyproxy squid dante-server >/dev/null; } || \
		echo "nginx, haproxy, tinyproxy, squid or dante-server cannot be installed here: the tests that need them are left out"
	@[ -x $(HOME)/.cache/sallyport-tools/bin/pebble ] || GOBIN=$(HOME)/.cache/sallyport-tools/bin $(GO) install github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.3 || \
		echo "pebble cannot be installed here: the tests of ACME are left out"

kafka: build ## Kafka portals with real brokers and clients of all kinds (needs Java, Python; Maven fetches brokers), with the reference where it is installed
	interop/kafka --ours $(PROGRAM) $(if $(wildcard $(HOME)/.cache/reference/bin/ockam),--reference $(HOME)/.cache/reference/bin/ockam)
	interop/kafka-clients --ours $(PROGRAM) $(KAFKA)

# Not part of lint: the database (vuln.go.dev) is not a module and cannot be had everywhere.
vulncheck: ## known vulnerabilities of what is imported, from Go's database; needs the network
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

test-attacks: build ## what strangers, members and crashes can do to a neighbour, on whole processes, then half an hour of all together; SHORT=1 takes less than 5 minutes, ROW=NAME one row, RACE=1 nodes with the race detector
	$(GO) run -race ./attacks --sallyport $(PROGRAM) $(if $(SHORT),--short) $(if $(RACE),--race-nodes) $(if $(ROW),--row $(ROW)) $(ATTACKFLAGS)

stall: build ## whole nodes with stalled readers, servers, peers: nothing lost, memory bounded (3 minutes; STALL=short: one)
	STALL=$(STALL) STALL_PROGRAM=$(abspath $(PROGRAM)) $(GO) test -count=1 -timeout 20m -v -run '^TestStalls$$' ./bench/paths
	@if unshare --net true 2>/dev/null && [ -c /dev/net/tun ]; then $(GO) run ./bench/distance --stall --sallyport $(PROGRAM); \
	else echo "no network namespaces or no /dev/net/tun here: readers that stop over 300 ms left out"; fi

# What make mutants changes: PACKAGES="./names ./state" for others, MUTANTS="-n 0" for all changes instead of 40 of each.
PACKAGES ?= ./names ./project ./config ./portal/httpheader ./state ./policy ./crypto/channel ./crypto/identity ./dataplane ./routing \
	./routing/tcp ./routing/udp ./routing/secure ./portal ./node

mutants: ## production code changed a line at a time: do the tests notice? (hours; PACKAGES, MUTANTS)
	$(GO) run ./internal/mutants $(MUTANTS) $(PACKAGES)

install: SHARE = $(DESTDIR)$(PREFIX)/share
install: build host ## the program, its manual pages, completions and systemd units, below DESTDIR
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/sallyport
	$(if $(CROSS),,for beside in sallyport-pkcs11 sallyport-aws-kms; do if [ -x bin/$$beside ]; then install -m 755 bin/$$beside $(DESTDIR)$(PREFIX)/bin/; fi; done)
	install -d $(DESTDIR)$(UNITS)
	install -m 644 systemd/*.service systemd/*.socket $(DESTDIR)$(UNITS)
	install -D -m 644 systemd/sallyport.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/sallyport.conf
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(HOST) manpages --dir $(SHARE)/man/man1
	$(HOST) completion --shell bash > $(SHARE)/bash-completion/completions/sallyport
	$(HOST) completion --shell zsh > $(SHARE)/zsh/site-functions/_sallyport
	$(HOST) completion --shell fish > $(SHARE)/fish/vendor_completions.d/sallyport.fish

# What is released: for each platform one static program, the same bytes wherever it is built from the same revision with the same Go.
DIST         ?= dist
PLATFORMS    ?= amd64 arm64 armv7 riscv64
# deb wants the name of whoever made the package.
MAINTAINER   ?= Sallyport developers <$(or $(DEBEMAIL),maintainers@localhost)>
PACKAGE_ARCH  = $(if $(filter arm,$(GOARCH)),arm$(or $(GOARM),7),$(shell $(GO) env GOARCH))
NFPM_VERSION := v2.43.0
SBOM_VERSION := v1.9.0

.PHONY: dist packages test-operate
# Times in what is released are those of the revision.
dist image packages: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
dist: $(TOOLS)/cyclonedx-gomod-$(SBOM_VERSION) ## dist/: static programs for PLATFORMS, their checksums and the list of what is in them (SBOM, CycloneDX)
	@mkdir -p $(DIST)
	@for platform in $(PLATFORMS); do \
		arch=$$platform; arm=; case $$platform in armv7) arch=arm; arm=7;; esac; \
		echo "$(DIST)/sallyport-$(VERSION)-linux-$$platform"; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch GOARM=$$arm $(GO) build -trimpath -buildvcs=false -ldflags "$(LDFLAGS) -buildid=" -o $(DIST)/sallyport-$(VERSION)-linux-$$platform ./cmd/sallyport; \
		$< bin -json -noserial -version $(VERSION) -output $(DIST)/sallyport-$(VERSION)-linux-$$platform.cdx.json $(DIST)/sallyport-$(VERSION)-linux-$$platform; \
		sed -i "s/\"timestamp\": \"[^\"]*\"/\"timestamp\": \"$$(date -u -d @$$SOURCE_DATE_EPOCH +%Y-%m-%dT%H:%M:%SZ)\"/" $(DIST)/sallyport-$(VERSION)-linux-$$platform.cdx.json; \
	done
	cd $(DIST) && sha256sum sallyport-$(VERSION)-linux-* > SHA256SUMS

$(TOOLS)/cyclonedx-gomod-$(SBOM_VERSION):
	@mkdir -p $(TOOLS)
	env -u GOARCH -u GOARM GOFLAGS= GOBIN=$(TOOLS)/bin $(GO) install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(SBOM_VERSION)
	@mv $(TOOLS)/bin/cyclonedx-gomod $@

packages: STAGE = $(DIST)/stage
packages: $(TOOLS)/nfpm-$(NFPM_VERSION) ## dist/: deb and rpm for the platform GOARCH, with units, manual pages, completions, configuration, licences (DEBEMAIL: who makes them)
	@rm -rf $(STAGE) && mkdir -p $(STAGE)
	$(MAKE) install DESTDIR=$(STAGE)
	install -d $(STAGE)/usr/share/doc/sallyport
	env -u GOARCH -u GOARM $(GO) run ./packaging/notices $(PROGRAM) | gzip -9n > $(STAGE)/usr/share/doc/sallyport/THIRD-PARTY.gz
	sh packaging/changelog.sh "$(VERSION)" "$(MAINTAINER)" $$SOURCE_DATE_EPOCH | gzip -9n > $(STAGE)/usr/share/doc/sallyport/changelog.gz
	for kind in deb rpm; do STAGE=$(STAGE) VERSION=$(VERSION) MAINTAINER="$(MAINTAINER)" PACKAGE_ARCH=$(PACKAGE_ARCH) \
		$< package --config packaging/nfpm.yaml --packager $$kind --target $(DIST)/; done
	@rm -rf $(STAGE)

.PHONY: image
image: dist ## dist/: an OCI image for PLATFORMS (docker load, podman load, skopeo copy oci-archive:...), made without a daemon
	$(GO) run ./packaging/notices $(DIST)/sallyport-$(VERSION)-linux-$(firstword $(PLATFORMS)) > $(DIST)/THIRD-PARTY
	$(GO) run ./packaging/image --version $(VERSION) --revision "$(REVISION)" --notices $(DIST)/THIRD-PARTY --out $(DIST)/sallyport-$(VERSION).oci.tar \
		$(foreach p,$(PLATFORMS),$(p)=$(DIST)/sallyport-$(VERSION)-linux-$(p))
	@rm $(DIST)/THIRD-PARTY

$(TOOLS)/nfpm-$(NFPM_VERSION):
	@mkdir -p $(TOOLS)
	env -u GOARCH -u GOARM GOFLAGS= GOBIN=$(TOOLS)/bin $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	@mv $(TOOLS)/bin/nfpm $@

# Tests that need root, or build for minutes, in turn; each says what is missing here.
.PHONY: test-packages
test-packages: DEBIAN = $(TOOLS)/debian-$(shell . /etc/os-release && echo $$VERSION_ID).tar
test-packages: ## what is released: packages in clean Debian roots, without systemd and with it, programs for other processors, the image (15 minutes)
	@command -v debootstrap >/dev/null && command -v lintian >/dev/null && command -v qemu-arm >/dev/null && command -v systemd-nspawn >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && apt-get update -q >/dev/null && apt-get install -y --no-install-recommends debootstrap lintian qemu-user systemd-container >/dev/null; } || \
		echo "debootstrap, lintian, qemu-user or systemd-container cannot be installed here: the tests that need them are left out"
	@packaging/debian-root $(DEBIAN) || echo "no Debian root can be made here: the tests in it are left out"
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; $(MAKE) -s image PLATFORMS=amd64 DIST="$$dir" && \
	IMAGE=$$(echo "$$dir"/*.oci.tar) DEBIAN_ROOT=$$(ls $(DEBIAN) 2>/dev/null || true) DIST_TEST=1 $(GO) test -p 1 -count=1 -timeout 60m -v ./packaging/... | \
		awk '/^=== /{next} /^ *--- |^ +[a-z_]+_test\.go:[0-9]+: |^(ok|FAIL|panic)/{print} /^FAIL|^--- FAIL|^panic/{bad=1} END{exit bad}'

.PHONY: test-charts
test-charts: ## the Helm chart: linted, rendered, decoded with Kubernetes' types, held against its restricted security standard
	cd charts/test && $(GO) test -count=1 -v ./... | awk '/^=== /{next} /^ *--- |^ +[a-z_]+_test\.go:[0-9]+: |^(ok|FAIL|panic)/{print} /^FAIL|^--- FAIL|^panic/{bad=1} END{exit bad}'

# A line for each point of what an operator needs: what it is, and whether it holds.
OPERATE_TESTS := ^(TestMetricsAreListed|TestRecords|TestRecordsOfRefusals|TestMetersAreBounded|TestAgree|TestDisagree|TestTampered|TestGoesOn|TestCLIRecords|TestCLITrace|TestCLIPage|TestCLITopKeys|TestNobodyWaits|TestHurry|TestFile|TestForTerminal|TestCLIPageIsForOne|TestHistory|TestView|TestCLIEscapes|TestCLINoSecrets|TestNoResumptionSecrets|TestText|TestCLIDoctor|TestCLIWatchdog|TestRules|TestQueries|TestSample|TestChangelog|TestUnits|TestPackage)$$
test-operate: build test-packages test-charts ## metrics, records, receipts, doctor, trace, alerts, units, packages: a line for each (5 minutes); installs prometheus where it can
	@command -v promtool >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -q >/dev/null && apt-get install -y --no-install-recommends prometheus >/dev/null; } || \
		echo "prometheus cannot be installed here: the tests that need it are left out"
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -q >/dev/null && apt-get install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || \
		echo "chromium cannot be installed here: the test of the page is left out"
	$(GO) test -p 1 -count=1 -timeout 15m -v -run '$(OPERATE_TESTS)' ./buildinfo ./dataplane ./portal ./records/... ./internal/visible ./node ./monitoring ./packaging ./cmd/sallyport | \
		awk '/^=== /{next} /^ *--- |^ +[a-z_]+_test\.go:[0-9]+: |^(ok|FAIL|panic)/{print} /^FAIL|^--- FAIL|^panic/{bad=1} END{exit bad}'

clean: ## remove what was built
	rm -rf bin dist

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
