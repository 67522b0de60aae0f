-- Run once, by the image's entry point, on an empty data folder. Passwords come from the secrets of the container.
\set nms `cat /run/secrets/nms_db`
\set monitor `cat /run/secrets/monitor`
\set reader `cat /run/secrets/reader`

-- the fleet's own; its sessions begin with these through PgBouncer too, which passes no options on
CREATE ROLE nms LOGIN PASSWORD :'nms';
ALTER ROLE nms SET timezone = 'UTC';
ALTER ROLE nms SET statement_timeout = '30s';
CREATE DATABASE nms OWNER nms;

-- what the polls of the service `postgresql` read with
CREATE ROLE nms_monitor LOGIN PASSWORD :'monitor' IN ROLE pg_monitor;

-- what Grafana reads with
CREATE ROLE nms_reader LOGIN PASSWORD :'reader';
ALTER ROLE nms_reader SET default_transaction_read_only = on;

\connect nms
CREATE EXTENSION pg_stat_statements;
GRANT USAGE ON SCHEMA public TO nms_reader;
GRANT CREATE, USAGE ON SCHEMA public TO nms;
ALTER DEFAULT PRIVILEGES FOR ROLE nms IN SCHEMA public GRANT SELECT ON TABLES TO nms_reader;
