# make            lists the targets
# make test       all that a change must pass before it is shown to anybody
# make ci         all that it must pass before it is merged

GO       ?= go
FUZZTIME ?= 10s
BENCH    ?= .

# The one place that says which golangci-lint checks the code.
LINT_VERSION := v2.15.0
LINT         := bin/golangci-lint-$(LINT_VERSION)

# The programs that make and check packages. They are no dependencies of the code, so go.mod does not know them.
NFPM_VERSION       := v2.45.2
NFPM               := bin/nfpm-$(NFPM_VERSION)
GORELEASER_VERSION := v2.15.2
GORELEASER         := bin/goreleaser-$(GORELEASER_VERSION)

.DEFAULT_GOAL := help
.PHONY: help build test testservers testtools race vet lint fuzz bench tidy-check package verify-reproducible release-check test-system ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/triggerd
	$(GO) build -trimpath -o bin/triggerd ./cmd/triggerd

test: testservers testtools ## install what the tests need, and run them all
	$(GO) mod download
	$(GO) test ./...

race: testservers testtools ## run all tests with the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./...

# The servers that sign-in and certificates are tested against. Others wrote them; lock files say which ones.
OIDC_PROVIDER := internal/auth/testdata/oidc-provider
ZITADEL       := internal/auth/testdata/zitadel
PEBBLE        := internal/certificate/testdata/pebble
AXE           := internal/status/testdata/axe

testservers: $(OIDC_PROVIDER)/node_modules/.package-lock.json $(AXE)/node_modules/.package-lock.json bin/testservers/zitadel bin/testservers/pebble ## install the OAuth and ACME servers and the page checker of the tests

%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund --loglevel=error
	touch $@

bin/testservers/zitadel: $(wildcard $(ZITADEL)/*)
	cd $(ZITADEL) && $(GO) build -trimpath -o $(CURDIR)/$@ .

bin/testservers/pebble: $(wildcard $(PEBBLE)/*)
	cd $(PEBBLE) && $(GO) build -trimpath -o $(CURDIR)/$@ .

# The programs that tests run, and the Debian packages they come in: PROGRAM=PACKAGE.
TESTTOOLS :=
TESTTOOLS += caddy=caddy
TESTTOOLS += nginx=nginx-light
TESTTOOLS += chromium=chromium
TESTTOOLS += promtool=prometheus
TESTTOOLS += systemd-analyze=systemd

testtools: ## install the programs that tests run, where they are missing
	@./.ci/testtools $(TESTTOOLS)

vet: ## go vet
	$(GO) vet ./...

lint: $(LINT) ## golangci-lint, with the reasons in .golangci.yml
	$(LINT) run ./...

$(LINT):
	GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv bin/golangci-lint $@

fuzz: ## run every fuzz target for FUZZTIME (10s)
	GO=$(GO) ./.ci/fuzz $(FUZZTIME)

bench: ## run the benchmarks that match BENCH (all)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

tidy-check: ## fail when go.mod or go.sum is not what the code needs
	$(GO) mod tidy -diff

package: $(NFPM) ## build .deb and .rpm of this commit into dist (ARCHS="amd64 arm64", VERSION)
	GO=$(GO) NFPM=$(NFPM) ./packaging/build

verify-reproducible: $(NFPM) ## build this commit twice, and fail when the two differ
	GO=$(GO) NFPM=$(NFPM) ./packaging/verify-reproducible

release-check: $(GORELEASER) ## check the configuration of goreleaser
	$(GORELEASER) check --quiet

test-system: ## make the packages, install them in a booted Debian container and try them there (needs root)
	GO=$(GO) ./systemd/test

$(NFPM):
	GOBIN=$(CURDIR)/bin $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	mv bin/nfpm $@

$(GORELEASER):
	GOBIN=$(CURDIR)/bin $(GO) install github.com/goreleaser/goreleaser/v2@$(GORELEASER_VERSION)
	mv bin/goreleaser $@

ci: ## everything that must pass before a change is merged
	./.ci/run

clean: ## remove what was built
	rm -rf bin dist
