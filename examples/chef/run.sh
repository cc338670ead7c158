#!/usr/bin/env bash
# What somebody from Chef server replication tries first. See README.md.
. "$(dirname "$0")/../lib.sh"
SCHEMAS=(acme globex)

source_sql "CREATE SCHEMA chef;
	CREATE TABLE chef.roles (org text, name text, data jsonb, PRIMARY KEY (org, name));
	CREATE TABLE chef.cookbooks (org text, name text, version text, PRIMARY KEY (org, name, version));
	INSERT INTO chef.roles SELECT (ARRAY['acme', 'globex'])[1 + n % 2], 'role' || n, '{}' FROM generate_series(1, 200) n;
	INSERT INTO chef.cookbooks SELECT (ARRAY['acme', 'globex'])[1 + n % 2], 'book' || n, '1.0' FROM generate_series(1, 50) n"
begin

step 'prepare-org, for two organisations: each into a schema of its own'
primary set create by-org --table 'chef.*={"org": {"$param": "org"}}'
for org in acme globex; do
	replica replication create "$org" --source "$PRIMARY" --set by-org --param "org=$org" --rename "chef.*=$org.*" --on-error quarantine --wait
done
roles() { same "$1: the roles of $1, and no others" "SELECT count(*) || coalesce(md5(string_agg(name || data, ',' ORDER BY name)), '') FROM chef.roles WHERE org = '$1'" \
	"SELECT count(*) || coalesce(md5(string_agg(name || data, ',' ORDER BY name)), '') FROM $1.roles"; }
roles acme
roles globex

step 'sync-stop, sync-start, sync-status, sync-log'
replica replication stop acme >/dev/null
source_sql "INSERT INTO chef.roles VALUES ('acme', 'while-stopped', '{}'), ('globex', 'while-stopped', '{}')"
replica replication wait globex
roles globex
is "acme stands still" 0 "$(target_sql "SELECT count(*) FROM acme.roles WHERE name = 'while-stopped'")"
replica status
replica replication start acme >/dev/null
replica replication wait acme
roles acme
replica replication log acme

step 'updated_since'
updated=$(primary updated --since earliest --set by-org --param org=acme)
echo "$updated"
since=$(sed -n 's/.*next: syncline updated --since //p' <<<"$updated")
source_sql "UPDATE chef.roles SET data = '{\"description\": []}' WHERE name IN ('role1', 'role2')"
replica replication wait globex
replica replication wait acme
updated=$(primary updated --since "$since" --set by-org --param org=acme)
echo "$updated"
has "updated since: the role of acme" role2 "$updated"
if grep -q 'name=role1$' <<<"$updated"; then fail "a role of another organisation is told"; fi

step 'unsynced-objects'
target_sql "ALTER TABLE acme.roles ADD CONSTRAINT no_dots CHECK (name NOT LIKE '%.%')"
source_sql "INSERT INTO chef.roles VALUES ('acme', 'web.example', '{}'); INSERT INTO chef.roles VALUES ('acme', 'web', '{}')"
replica replication wait acme
unsynced=$(replica replication unsynced acme)
echo "$unsynced"
has "unsynced: what is refused is told" no_dots "$unsynced"
is "and the rest goes on" 1 "$(target_sql "SELECT count(*) FROM acme.roles WHERE name = 'web'")"
target_sql "ALTER TABLE acme.roles DROP CONSTRAINT no_dots"
replica replication retry acme --all
roles acme

for org in acme globex; do
	replica verify "$org"
	replica replication delete "$org"
done
primary set delete by-org
