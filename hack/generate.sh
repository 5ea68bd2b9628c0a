#!/usr/bin/env bash
# Writes every generated file of the repository: CRDs, deep copies and the CLI's
# pages.
#
# CONTROLLER_GEN may name a built controller-gen of the version in
# hack/crds/main.go; without it, go run fetches that version through the Go
# proxy. Nothing else needs the network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

go run ./hack/crds -out pkg/api/crds ${CONTROLLER_GEN:+-controller-gen "$CONTROLLER_GEN"}
go run ./hack/clidocs -out docs/cli.md
