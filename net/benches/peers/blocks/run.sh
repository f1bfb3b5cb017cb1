#!/bin/sh
# Installs what is missing where apt-get is there, builds, and measures everything.
# Arguments go to `cordee-bench-blocks`, for instance: --pairs 5 --size 256M --row aria2
set -eu
cd "$(dirname "$0")/../../../.."

missing=
for pair in aria2c:aria2 axel:axel nginx:nginx-light wrk:wrk curl:curl; do
    command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        for package in $missing; do
            apt-get install --yes --no-install-recommends "$package" ||
                echo "$package could not be installed" >&2
        done
    else
        echo "missing, and not measured:$missing" >&2
    fi
fi

cargo build --release --quiet -p cordee -p cordee-bench-blocks
exec "${CARGO_TARGET_DIR:-target}/release/cordee-bench-blocks" "$@"
