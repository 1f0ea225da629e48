-- One line for each table, matview, sequence and large object: its name, and a hash of what is in it.
set extra_float_digits = 3;
set timezone = 'UTC';
select format(
  'select %L, count(*), md5(coalesce(string_agg(md5(t::text), '''' order by md5(t::text)), '''')) from %s %s t',
  c.oid::regclass, case when c.relkind = 'r' then 'only' else '' end, c.oid::regclass)
from pg_class c
where c.relkind in ('r', 'm') and c.relpersistence <> 't'
  and c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
  and (c.relkind = 'r' or c.relispopulated)
order by c.oid::regclass::text \gexec
select schemaname, sequencename, last_value, increment_by, cache_size from pg_sequences order by 1, 2;
select 'large object', loid, md5(string_agg(data, ''::bytea order by pageno)) from pg_largeobject group by loid order by loid;
