#!/bin/sh
# Runs dapr.yaml with the Dapr CLI: `make dapr-run`. The CLI starts services and
# sidecars; the broker and store are the Redis of `dapr init`; the mail sink is
# started, and stopped, here.
set -eu

if ! command -v dapr >/dev/null 2>&1; then
	cat >&2 <<-'HELP'
		The Dapr CLI is not installed. Either install it and its runtime:

		    https://docs.dapr.io/getting-started/install-dapr-cli/
		    dapr init --runtime-version 1.18.0

		or run the same dapr.yaml without it: make run
	HELP
	exit 1
fi
if ! [ -x "${DAPR_RUNTIME_PATH:-$HOME}/.dapr/bin/daprd" ]; then
	echo "The Dapr CLI has no runtime yet: dapr init --runtime-version 1.18.0" >&2
	exit 1
fi

# New with each run, and in the environment only: both the sidecars and the
# services inherit them.
random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
DAPR_API_TOKEN=${DAPR_API_TOKEN:-$(random)}
APP_API_TOKEN=${APP_API_TOKEN:-$(random)}
export DAPR_API_TOKEN APP_API_TOKEN

bin/mailsink &
sink=$!
trap 'kill "$sink" 2>/dev/null || true; wait "$sink" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

echo "through a sidecar, add: -H 'dapr-api-token: $DAPR_API_TOKEN'"
dapr run -f dapr.yaml
