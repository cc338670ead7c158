-- Runs once, in a replica's new database: the role that Syncline uses. It owns what it creates. The parameter lets it write rows
-- table by table, as they come, without foreign keys and triggers getting in the way.
CREATE ROLE syncline LOGIN PASSWORD 'syncline';
GRANT CREATE ON DATABASE company TO syncline;
GRANT SET ON PARAMETER session_replication_role TO syncline;
