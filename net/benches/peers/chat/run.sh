#!/bin/sh
# Installs nats-server where it is missing and apt-get is there, builds, and measures everything.
# Arguments go to `cordee-bench-chat compare`, for instance: --pairs 3 --shape fan-out
set -eu
cd "$(dirname "$0")/../../../.."

if ! command -v nats-server >/dev/null && [ ! -x /usr/sbin/nats-server ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get install --yes --no-install-recommends nats-server ||
            echo "nats-server could not be installed" >&2
    else
        echo "nats-server is missing: install it to measure it" >&2
    fi
fi

cargo build --release --quiet -p cordee -p cordee-bench-chat
bench="${CARGO_TARGET_DIR:-target}/release/cordee-bench-chat"
"$bench" compare "$@"
"$bench" failover
