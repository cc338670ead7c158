#!/usr/bin/env bash
# What somebody from Sahana Eden's synchronisation tries first. See README.md.
. "$(dirname "$0")/../lib.sh"

source_sql "CREATE SCHEMA sahana;
	CREATE TABLE sahana.shelters (uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text, beds int);
	CREATE TABLE sahana.requests (uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(), item text, quantity int);
	INSERT INTO sahana.shelters (name, beds) SELECT 'shelter ' || n, n FROM generate_series(1, 100) n;
	INSERT INTO sahana.requests (item, quantity) SELECT 'blankets', n FROM generate_series(1, 100) n"
begin
shelters="SELECT count(*) || md5(string_agg(uuid || name || beds, ',' ORDER BY uuid)) FROM sahana.shelters"
requests="SELECT count(*) || md5(string_agg(uuid || item || quantity, ',' ORDER BY uuid)) FROM sahana.requests"

step 'register a repository: the same structure on both sides?'
replica replication check --source "$PRIMARY" --table sahana.shelters

step 'a repository with the resource shelters, run now'
replica replication create shelters --source "$PRIMARY" --table sahana.shelters --mode once
replica replication wait shelters
same "run now: the shelters are here" "$shelters"

step 'a schedule runs it again'
source_sql "UPDATE sahana.shelters SET beds = beds + 1 WHERE beds <= 10"
replica replication update shelters --schedule '@every 10s'
same "a run of the schedule has brought what changed" "$shelters"
replica replication update shelters --schedule none

step 'run now'
source_sql "UPDATE sahana.shelters SET name = 'new' WHERE beds = 50"
replica replication start shelters >/dev/null
replica replication wait shelters
same "run now: what changed since is here" "$shelters"

step 'the synchronisation log'
replica replication runs shelters
has "each run has its result" RUN_RESULT_SUCCESS "$("$SYNCLINE" replication runs shelters --json --addr "$REPLICA")"
replica replication log shelters

step 'push: the target cannot dial the source'
primary push create requests --target "$REPLICA" --table sahana.requests
for _ in $(seq 1 300); do
	if "$SYNCLINE" replication wait requests --addr "$REPLICA" >/dev/null 2>&1; then break; fi
	sleep 0.2
done
same "push: the requests are there" "$requests"
source_sql "INSERT INTO sahana.requests (item, quantity) VALUES ('water', 7)"
replica replication wait requests
same "push: and what was requested since" "$requests"
primary push show requests
replica replication list

primary push delete requests --replication
replica replication delete shelters
