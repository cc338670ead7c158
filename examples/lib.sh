# What the examples share: two servers, SQL, and proofs. It is sourced by them.
#
#   SOURCE_URL, TARGET_URL      PostgreSQL URLs of two databases (needed); the first one's server needs wal_level = logical
#   SYNCLINE                    the binary; syncline from the path when not set
#   PRIMARY_GRPC, REPLICA_GRPC  where the two Syncline servers listen; 127.0.0.1:7400 and 127.0.0.1:7500 when not set
#   EXAMPLE_SQL                 a command that takes a URL and statements; psql when not set, and examples/sql where there is none

set -euo pipefail
: "${SOURCE_URL:?is needed: the URL of a PostgreSQL database with wal_level = logical}" "${TARGET_URL:?is needed: the URL of another PostgreSQL database}"
SYNCLINE=${SYNCLINE:-syncline} PRIMARY=${PRIMARY_GRPC:-127.0.0.1:7400} REPLICA=${REPLICA_GRPC:-127.0.0.1:7500}
EXAMPLE=$(basename "$(dirname "$0")")
WORK=$(mktemp -d)
PIDS=()
SCHEMAS=("$EXAMPLE") # that are dropped on the target at the end

sql() { # URL STATEMENTS
	if [ -n "${EXAMPLE_SQL:-}" ]; then
		"$EXAMPLE_SQL" "$@"
	elif command -v psql >/dev/null; then
		psql -qAtX -v ON_ERROR_STOP=1 "$1" -c "$2"
	else
		(cd "$(dirname "$0")/../.." && go run ./examples/sql "$@")
	fi
}
source_sql() { sql "$SOURCE_URL" "$1"; }
target_sql() { sql "$TARGET_URL" "$1"; }

step() { printf '\n== %s\n' "$*"; }
show() { # prints the command and runs it
	printf '$ syncline %s\n' "$*"
	"$SYNCLINE" "$@"
}
primary() { show "$@" --addr "$PRIMARY"; }
replica() { show "$@" --addr "$REPLICA"; }

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# same WHAT QUERY [QUERY-ON-THE-TARGET] waits until both databases give the same answer.
same() {
	local there here
	there=$(source_sql "$2")
	for _ in $(seq 1 300); do
		here=$(target_sql "${3:-$2}")
		if [ "$here" = "$there" ]; then
			echo "proved: $1"
			return
		fi
		sleep 0.2
	done
	fail "$1: the source has ${there:-nothing}, the replica ${here:-nothing}"
}

# is WHAT WANT GOT
is() {
	[ "$2" = "$3" ] || fail "$1: $3 instead of $2"
	echo "proved: $1"
}

# has WHAT WORDS TEXT
has() {
	case "$3" in
	*"$2"*) echo "proved: $1" ;;
	*) fail "$1: \"$2\" is not in: $3" ;;
	esac
}

begin() {
	step "two Syncline servers: a primary that captures schema $EXAMPLE, and a replica"
	"$SYNCLINE" primary --postgres "$SOURCE_URL" --data "$WORK/log" --grpc "$PRIMARY" --http "" \
		--table "$EXAMPLE.*" --slot "syncline_$EXAMPLE" --publication "syncline_$EXAMPLE" >"$WORK/primary.txt" 2>&1 &
	PIDS+=($!)
	"$SYNCLINE" replica --postgres "$TARGET_URL" --grpc "$REPLICA" --http "" >"$WORK/replica.txt" 2>&1 &
	PIDS+=($!)
	for address in "$PRIMARY" "$REPLICA"; do
		for _ in $(seq 1 300); do
			if "$SYNCLINE" health --addr "$address" >/dev/null 2>&1; then continue 2; fi
			kill -0 "${PIDS[@]}" 2>/dev/null || fail "a server has ended: $(cat "$WORK"/*.txt)"
			sleep 0.2
		done
		fail "the server at $address did not come up: $(cat "$WORK"/*.txt)"
	done
	for _ in $(seq 1 300); do
		case "$("$SYNCLINE" status --json --addr "$PRIMARY")" in *'"capturing"'*) return ;; esac
		sleep 0.2
	done
	fail "the primary does not capture: $("$SYNCLINE" status --addr "$PRIMARY")"
}

end() {
	local code=$?
	trap - EXIT
	if [ "$code" != 0 ]; then cat "$WORK"/*.txt >&2 || true; fi
	if [ "${#PIDS[@]}" -gt 0 ]; then
		kill "${PIDS[@]}" 2>/dev/null || true
		wait "${PIDS[@]}" 2>/dev/null || true
	fi
	# The server may not have noticed yet that the slot's session is gone.
	source_sql "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = 'syncline_$EXAMPLE' AND active_pid IS NOT NULL" >/dev/null || true
	source_sql "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'syncline_$EXAMPLE'" >/dev/null || true
	source_sql "DROP EVENT TRIGGER IF EXISTS syncline_${EXAMPLE}_guard; DROP FUNCTION IF EXISTS syncline.guard_syncline_$EXAMPLE; DROP PUBLICATION IF EXISTS syncline_$EXAMPLE; DROP PUBLICATION IF EXISTS syncline_${EXAMPLE}_insert; DROP SCHEMA IF EXISTS $EXAMPLE CASCADE" || true
	for schema in "${SCHEMAS[@]}"; do target_sql "DROP SCHEMA IF EXISTS $schema CASCADE" || true; done
	rm -rf "$WORK"
	if [ "$code" = 0 ]; then printf '\nThe %s example has worked.\n' "$EXAMPLE"; fi
	exit "$code"
}
trap end EXIT
