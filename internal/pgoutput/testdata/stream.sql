create schema "Öl & ""Gas""";
create type mood as enum ('sad', 'ok', 'very "happy"');
create type pair as (a int, b text);
create domain percent as numeric(5,2) check (value between 0 and 100);
create table plain (id bigint primary key, v text, n numeric(12,3), at timestamptz, doc jsonb, raw bytea, tags text[]);
create table "Öl & ""Gas"""."O'Brien" (a int, "b c" varchar(9), "select" text, primary key ("b c", a));
create table whole (id int, f float8, t text);
alter table whole replica identity full;
create table by_index (id int, code text not null, rest text);
create unique index by_index_code on by_index (code);
alter table by_index replica identity using index by_index_code;
create table typed (id int primary key, m mood, p pair, d percent, ms mood[]);
create table big (id int primary key, v text, w int);
alter table big alter v set storage external;
create table big_whole (id int, v text, w int);
alter table big_whole alter v set storage external, replica identity full;
create table nothing ();
create table parent (id int, part int, v text, primary key (id, part)) partition by list (part);
create table child_1 partition of parent for values in (1);
create table child_2 partition of parent for values in (2);
create table serials (id serial primary key, v text);
create table refers (id int primary key, serial_id int references serials);
create table unpublished (id int primary key);
create publication pgoutput_test for table plain, "Öl & ""Gas"""."O'Brien", whole, by_index, typed, big, big_whole,
	nothing, parent, serials, refers with (publish_via_partition_root = false);

begin;
insert into plain values (1, 'one', 1.5, '2026-01-02 03:04:05.678901+00', '{"a": [1, null]}', '\x00ff', '{a,"b c",NULL}');
insert into plain (id) values (9223372036854775807);
insert into plain (id, v) values (3, ''), (4, E'tab\t newline\n quote'' äöü 🙂');
update plain set v = 'uno' where id = 1;
update plain set id = 5 where id = 4;
delete from plain where id = 3;
commit;

insert into "Öl & ""Gas"""."O'Brien" values (1, 'x', 'y');
update "Öl & ""Gas"""."O'Brien" set "b c" = 'z';
delete from "Öl & ""Gas"""."O'Brien";

begin;
insert into whole values (1, 0.1, 'a'), (1, 0.1, 'a'), (null, 'NaN', null);
update whole set t = 'b' where id is null;
delete from whole where id is null;
commit;

insert into by_index values (1, 'c', 'r');
update by_index set rest = 's';
update by_index set code = 'd';
delete from by_index;

insert into typed values (1, 'very "happy"', '(7,"x, y")', 12.5, '{sad,ok}');

begin;
insert into big values (1, repeat('x', 10000), 1);
update big set w = 2;
update big set id = 2;
update big set v = 'short';
insert into big_whole values (1, repeat('y', 10000), 1);
update big_whole set w = 2;
delete from big_whole;
commit;

insert into nothing default values;

begin;
insert into parent values (1, 1, 'p'), (2, 2, 'q');
update parent set part = 2 where id = 1;
commit;

insert into serials (v) values ('a'), ('b');
insert into refers values (1, 2);
truncate serials restart identity cascade;
truncate plain, parent;

begin;
insert into plain (id, v) values (10, 'kept');
savepoint s;
insert into plain (id, v) values (11, 'rolled back');
rollback to s;
insert into plain (id, v) values (12, 'kept too');
commit;

begin;
insert into plain (id, v) values (13, 'aborted');
select pg_logical_emit_message(true, 'gone', 'with its transaction');
select pg_logical_emit_message(false, 'stays', 'without it');
rollback;

begin;
select pg_logical_emit_message(true, 'syncline.origin', E'{"at": "0/1"}');
insert into plain (id, v) values (14, 'with message');
select pg_logical_emit_message(true, '', '\x0001ff'::bytea);
commit;

begin;
insert into plain (id, v) values (15, 'before');
alter table plain drop column n, add column extra varchar(5) default 'dflt', alter id type int;
insert into plain (id, extra) values (16, 'after');
commit;

alter table by_index replica identity nothing;
insert into by_index values (2, 'no', 'identity');

begin;
insert into plain (id, v) values (17, 'prepared');
prepare transaction 'pgoutput_test';

commit prepared 'pgoutput_test';

insert into unpublished values (1);

select pg_replication_origin_create('pgoutput test origin');
select pg_replication_origin_session_setup('pgoutput test origin');

begin;
select pg_replication_origin_xact_setup('ABC/DEF', '2020-02-03 04:05:06.789012+00');
insert into plain (id, v) values (18, 'from elsewhere');
commit;

select pg_replication_origin_session_reset();

select pg_replication_origin_drop('pgoutput test origin');
