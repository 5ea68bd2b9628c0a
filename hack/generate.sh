#!/usr/bin/env bash
# Writes every generated file of the repository: CRDs, deep copies, the CLI's
# pages and the copy of the admission policies.
#
# CONTROLLER_GEN may name a built controller-gen of the version in
# hack/crds/main.go; without it, go run fetches that version through the Go
# proxy. Nothing else needs the network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

go run ./hack/crds -out pkg/api/crds ${CONTROLLER_GEN:+-controller-gen "$CONTROLLER_GEN"}
go run ./hack/clidocs -out docs/cli.md

# The chart of the hub can read its own files only.
cp pkg/work/policies.yaml charts/hub/files/policies.yaml
