#!/usr/bin/env bash
# Writes the seeds of the targets whose inputs are lists of operations: one byte a choice, as the
# table above each body says. An input that once failed is not made here; it is a file and stays.
set -euo pipefail
cd "$(dirname "$0")"

# seed TARGET/NAME BYTE…
seed() {
  local file=corpus/$1
  shift
  mkdir -p "$(dirname "$file")"
  printf "$(printf '\\x%02x' "$@")" > "$file"
}

# times COUNT WORD…: the words again and again.
times() {
  local count=$1 at
  shift
  for ((at = 0; at < count; at++)); do echo "$@"; done
}

archives() {
  # An origin writes: 0 origin author what step scope. 0 is a long body, 1 the same again, 3 a gap.
  # 1 takes: replica origin count − 1. 2 adopts: to from.
  seed archive/copies-meet-in-both-orders 0 0 0 5 3 1  0 1 0 1 0 0  1 0 0 0  1 0 1 0  1 1 1 0  1 1 0 0
  seed archive/trimmed $(times 12 0 0 0 0 1 1 0 1 1 0 2 0) 1 0 0 31 1 0 1 31 7 0 1 0 9 1 1 1 1 8 0 1 0
  seed archive/floor-adopted $(times 12 0 0 0 0 1 1 0 1 1 5 2 0) 1 0 0 31 1 0 1 31 2 1 0 1 1 0 31 1 1 1 31 2 2 1
  seed archive/floor-above-a-part $(times 14 0 0 0 0 1 0 0 2 1 0 1 1) 1 1 0 4 1 1 2 4 1 0 0 31 1 0 2 31 2 1 0 1 1 0 31
  seed archive/lost-and-found 0 0 0 5 1 0  0 1 0 3 1 0  0 2 0 5 1 0  1 0 1 3  1 0 0 3  1 0 2 3  1 1 2 3  1 1 0 3
  seed archive/one-message-in-two-rooms 0 0 0 5 1 0  0 1 0 2 0 0  1 0 1 1  1 0 0 1  1 1 0 1  1 1 1 1
  seed archive/catch-up-while-trimmed $(times 9 0 0 0 5 1 0 0 1 1 5 1 1) 1 0 0 31 1 0 1 31 4 0 0 3 0 0 0 0 5 0 2 \
    $(times 14 0 0 0 0 1 0) 1 0 0 31 5 0 15
  seed archive/catch-up-from-a-moment 0 0 0 5 4 0 0 0 1 5 4 0 1 0 0 9 3 0 0 1 0 1 0 0 1 0 1 9 4 0 1 15 0 0 0 0 6 0 1 5 0 9
  seed archive/catch-up-while-a-floor-is-adopted $(times 14 0 0 0 0 1 0 0 1 0 1 1 0) 1 1 0 9 4 1 0 15 0 0 0 0 5 0 1 \
    1 0 0 31 1 0 1 31 2 1 0 5 0 15 1 1 1 31
}

sessions() {
  local open='0 0' ada='1 0 0 0 0 0 0 0' bob='1 1 1 0 1 0 0 0'
  local two="$open $open $ada $bob"
  # 3 says: connection place number body after. Number 4 is the next, 0 the last again.
  seed session/two-talk $two 3 0 3 4 7 0 3 1 3 4 8 2 3 0 6 4 9 0 3 0 3 0 7 0
  seed session/a-room-is-joined-late $two 6 0 0 3 0 0 4 1 0 3 0 0 4 2 0 6 1 0 3 1 0 4 3 0 7 1 0 3 0 0 4 4 0 6 1 0 9 0 2 0 0 0
  seed session/names-collide $open $open $ada 1 1 1 0 2 0 0 0 1 1 1 0 1 0 0 0 8 1 1 0 8 0 1 1 10 0 2 11 4 8 0 1 0
  seed session/full $(times 7 $open) $ada $bob 1 2 2 0 3 0 0 0 1 3 3 1 5 0 0 0 1 3 3 0 3 0 0 0 1 4 4 0 3 0 0 0
  seed session/resumes-elsewhere $two 3 1 3 4 1 0 10 0 2 3 0 3 4 2 0 $open 1 1 0 1 0 0 0 0 3 0 3 4 3 0 $open 1 2 0 1 0 0 0 0
  seed session/hands-back-after-a-restart $two 6 0 0 3 0 0 4 1 0 3 1 3 4 2 0 15 $open 1 0 0 1 0 0 0 0 3 0 3 4 3 0 $open 1 1 1 1 1 0 0 0
  seed session/hands-back-what-was-changed $two 3 0 3 4 1 0 15 $open 1 0 0 1 0 0 0 1 $open 1 1 1 1 1 0 2 3 11 4
  seed session/a-slow-reader-is-left-behind $two 13 1 5 0 59 5 0 59 5 0 59 11 6 11 6 11 6 $open 1 1 1 1 1 0 0 0
  seed session/storage-is-slow $two 14 3 0 3 4 1 0 3 0 3 4 2 0 9 0 2 0 0 0 11 4 14
  seed session/asks $two 3 0 3 4 0 0 3 1 3 4 3 0 9 0 0 0 0 0 9 0 1 0 0 0 9 1 4 0 0 0 9 1 5 3 0 9 9 0 5 3 1 1 9 0 3 0 0 0
  seed session/anything-is-said $open 12 0 24 3 1 0 0 $open 12 1 1 4 1 2 3 4 0 7 11 6
  seed session/resets $two 3 0 3 4 0 0 10 1 2 $open 1 1 1 2 1 3 0 0 3 0 3 4 1 0 10 0 0 11 7
}

meshes() {
  # The first byte says how many servers and how lawful the stranger is.
  seed mesh/two-talk 0 0 0 3 0 0 1 3 1 1 2 3 0
  seed mesh/cut-and-healed 1 3 0 1 3 1 2 4 0 1 3 0 3 3 1 4 2 3 4 0 0 2 6
  seed mesh/a-server-starts-anew 1 3 0 1 3 1 2 2 3 5 0 2 5 3 1 4 3 2 5
  seed mesh/a-stranger-writes 0 $(times 1 6 0 0) 7 0 7 1 7 2 2 3 6 1 0 7 0 2 5 8 0 2 6
  seed mesh/a-stranger-lies 2 6 0 0 $(for kind in 0 1 2 3 4 5 6 7 8 9 10 11 12 13; do echo 9 $kind 1 2 3 4 5 6; done) 2 6
}

worlds() {
  seed world/quiet 0 0 0 0 0 4 4 4
  seed world/one-server-dies 1 0 0 0 0 0 4 8 0 0 1 4 8 0 1 4 4 4
}

fetches() {
  # Blocks, what is stored, how, what may be in flight. 3 stands: conn. 4 comes: conn, count − 1. 1 waits: how long.
  local two='0 0 3 0 3 1'
  seed blocks/one-gives-all 40 255 0 63 0 3 0 $(times 5 4 0 15 1 1)
  seed blocks/one-falls-silent 100 255 0 63 $two $(times 4 4 0 2 4 1 2 1 1) 1 5 4 1 15 1 5 4 1 15 1 7 4 1 15 1 7 11
  seed blocks/a-silent-one-comes-back 100 255 0 63 $two $(times 4 4 0 2 4 1 2) 1 5 4 1 9 1 5 4 0 9 4 1 9 4 0 9
  seed blocks/one-lies 60 20 0 63 $two 4 0 0 8 0 4 1 3 8 0 11 4 1 15 1 6 4 1 15
  seed blocks/in-order 120 255 1 7 $two $(times 6 4 0 2 4 1 0 1 2) 1 5 4 1 9
  seed blocks/a-connection-a-block 30 255 2 63 0 3 0 4 0 0 11 $(times 9 3 0 4 0 0 11)
  seed blocks/slowly 30 255 4 63 $two $(times 9 4 0 0 4 1 0 1 3)
  seed blocks/two-connections-each 120 255 8 63 $two 3 2 3 3 $(times 5 4 0 3 4 1 3 4 2 3 4 3 3 1 2)
  seed blocks/refused-and-closed 90 255 0 63 $two 9 0 0 1 6 4 0 3 9 1 1 11 10 0 1 1 6 3 0 4 0 9 10 0 10 1 4 3 0 4 0 9
  seed blocks/nobody-is-left 40 255 0 63 $two 10 0 5 10 0 6
}

archives
sessions
meshes
worlds
fetches
