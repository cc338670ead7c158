#!/usr/bin/env bash
# What somebody from CouchDB tries first. See README.md.
. "$(dirname "$0")/../lib.sh"

source_sql "CREATE SCHEMA couchdb;
	CREATE TABLE couchdb.people (id text PRIMARY KEY, doc jsonb);
	CREATE TABLE couchdb.archive (id text PRIMARY KEY, doc jsonb);
	CREATE TABLE couchdb.old (id text PRIMARY KEY, doc jsonb);
	CREATE TABLE couchdb.docs (id text PRIMARY KEY, type text, doc jsonb);
	ALTER TABLE couchdb.docs REPLICA IDENTITY FULL;
	INSERT INTO couchdb.people SELECT 'p' || n, '{}' FROM generate_series(1, 100) n;
	INSERT INTO couchdb.archive SELECT 'a' || n, '{}' FROM generate_series(1, 100) n;
	INSERT INTO couchdb.old SELECT 'o' || n, '{}' FROM generate_series(1, 100) n;
	INSERT INTO couchdb.docs SELECT 'd' || n, (ARRAY['invoice', 'letter', 'order'])[1 + n % 3], '{}' FROM generate_series(1, 300) n"
begin

step '_replicate {"continuous": true}, or a document in _replicator'
replica replication check --source "$PRIMARY" --table couchdb.people
replica replication create people --source "$PRIMARY" --table couchdb.people --wait
source_sql "INSERT INTO couchdb.people VALUES ('new', '{\"a\": 1}'); DELETE FROM couchdb.people WHERE id = 'p7'"
replica replication wait people
same "continuous: what was inserted and deleted is here" "SELECT count(*) || md5(string_agg(id || doc, ',' ORDER BY id)) FROM couchdb.people"

step '_replicate without continuous: a run that ends, and one that goes on where it ended'
replica replication create archive --source "$PRIMARY" --table couchdb.archive --mode once
replica replication wait archive
source_sql "INSERT INTO couchdb.archive VALUES ('later', '{}')"
is "one-shot: what came later is not here" 100 "$(target_sql 'SELECT count(*) FROM couchdb.archive')"
replica replication start archive >/dev/null
replica replication wait archive
is "one-shot: the next run has brought it" 101 "$(target_sql 'SELECT count(*) FROM couchdb.archive')"

step '"selector": {"type": "invoice"}'
primary set create some --table 'couchdb.docs={"type": "invoice"}'
replica replication create docs --source "$PRIMARY" --set some --wait
source_sql "UPDATE couchdb.docs SET type = 'invoice' WHERE id = 'd1'; UPDATE couchdb.docs SET type = 'letter' WHERE id = 'd3'"
replica replication wait docs
all="SELECT coalesce(md5(string_agg(id || type, ',' ORDER BY id)), '') FROM couchdb.docs"
same "selector: rows come and go as they match" "$all WHERE type = 'invoice'" "$all"

step 'another selector: the same replication goes on with it'
primary set update some --table 'couchdb.docs={"type": {"$in": ["invoice", "order"]}}'
same "a changed selector is taken over" "$all WHERE type IN ('invoice', 'order')" "$all"
replica replication wait docs

step 'POST _replicate once, nothing kept'
replica replication run --source "$PRIMARY" --table couchdb.old --name first
source_sql "DELETE FROM couchdb.old WHERE id = 'o1'"
replica replication run --source "$PRIMARY" --table couchdb.old --initial incremental --name second
same "transient: the second run shipped the difference" "SELECT count(*) || md5(string_agg(id, ',' ORDER BY id)) FROM couchdb.old"

step '_scheduler/jobs, _scheduler/docs, _active_tasks'
"$SYNCLINE" replication list --watch --json --addr "$REPLICA" >"$WORK/watched" &
watch=$!
replica replication list
source_sql "INSERT INTO couchdb.people VALUES ('watched', '{}')"
replica replication wait people
for _ in $(seq 1 100); do
	if grep -q '"people"' "$WORK/watched"; then break; fi
	sleep 0.1
done
kill "$watch" 2>/dev/null || true
wait "$watch" 2>/dev/null || true
has "watch: changes are told as they come" '"people"' "$(cat "$WORK/watched")"
replica verify people

for name in people archive docs; do replica replication delete "$name"; done
primary set delete some
