-- A schema with what dumps find hard.
CREATE SCHEMA audit;
CREATE SCHEMA "odd schema";
COMMENT ON SCHEMA audit IS 'it''s a "schema"';
CREATE TYPE public.mood AS ENUM ('sad', 'it''s ok', 'happy; COPY x FROM stdin;');
CREATE DOMAIN public.email AS text CHECK (VALUE ~ '@');
CREATE TYPE public.point3 AS (x double precision, y double precision, z double precision);
CREATE SEQUENCE public.numbers START 1000 INCREMENT 7;
SELECT nextval('public.numbers'), nextval('public.numbers');

CREATE TABLE public.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    mail public.email,
    mood public.mood DEFAULT 'sad',
    tags text[] DEFAULT '{}',
    document jsonb,
    place public.point3,
    name_length int GENERATED ALWAYS AS (length(name)) STORED,
    photo bytea
);
INSERT INTO public.customers (name, mail, mood, tags, document, place, photo)
SELECT E'line one\nline two\t' || g || E' \\. back\\slash\r', 'a' || g || '@example.org', 'it''s ok', ARRAY['a,b', '"q"', E'n\nl', NULL],
       jsonb_build_object('n', g, 'text', E'\\.\n'), ROW(g, g / 3.0, 'NaN')::public.point3, decode(md5(g::text), 'hex')
  FROM generate_series(1, 500) g;
INSERT INTO public.customers (name) VALUES (''), (E'\\.'), ('\N'), (E'\n\\.\n');

CREATE TABLE public.orders (
    id int NOT NULL,
    customer bigint REFERENCES public.customers ON DELETE CASCADE,
    day date NOT NULL,
    total numeric(12, 2) CHECK (total >= 0)
) PARTITION BY RANGE (day);
CREATE TABLE public.orders_2025 PARTITION OF public.orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE public.orders_2026 PARTITION OF public.orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (id);
CREATE TABLE public.orders_2026_one PARTITION OF public.orders_2026 FOR VALUES IN (1, 2, 3);
CREATE TABLE public.orders_2026_rest PARTITION OF public.orders_2026 DEFAULT;
CREATE TABLE public.orders_default PARTITION OF public.orders DEFAULT;
INSERT INTO public.orders SELECT g, g % 500 + 1, '2025-06-01'::date + g, g * 1.5 FROM generate_series(1, 1000) g;
CREATE INDEX ON public.orders (customer);
CREATE UNIQUE INDEX orders_unique ON public.orders (id, day);

CREATE TABLE public.empty (a int, b text);
CREATE TABLE public.no_columns ();
INSERT INTO public.no_columns DEFAULT VALUES;
INSERT INTO public.no_columns DEFAULT VALUES;
CREATE TABLE public.parent (a int);
CREATE TABLE public.child (b int) INHERITS (public.parent);
INSERT INTO public.parent VALUES (1);
INSERT INTO public.child VALUES (2, 3), (4, 5);
-- pg_dump names a default of a column that inherits one and has none of its own.
CREATE TABLE public.defaulted (a int DEFAULT 1);
CREATE TABLE public.undefaulted () INHERITS (public.defaulted);
ALTER TABLE public.undefaulted ALTER a DROP DEFAULT;
INSERT INTO public.undefaulted VALUES (2);
CREATE UNLOGGED TABLE public.unlogged (a int);
INSERT INTO public.unlogged VALUES (1);

CREATE TABLE "odd schema"."Odd ""table""
with newline -- and dashes" ("a column" int PRIMARY KEY, "select" text);
INSERT INTO "odd schema"."Odd ""table""
with newline -- and dashes" VALUES (1, 'x'), (2, NULL);
CREATE TABLE "odd schema"."--help" (a int);
INSERT INTO "odd schema"."--help" VALUES (1);
CREATE TABLE audit."order" (a int);
INSERT INTO audit."order" SELECT generate_series(1, 3);
CREATE TABLE audit.log (at timestamptz DEFAULT '2026-01-01', what text);
INSERT INTO audit.log (what) SELECT 'event ' || g FROM generate_series(1, 20) g;

CREATE VIEW public.totals AS SELECT customer, sum(total) AS total FROM public.orders GROUP BY customer;
CREATE MATERIALIZED VIEW public.best AS SELECT * FROM public.totals ORDER BY total DESC NULLS LAST, customer LIMIT 10;
CREATE UNIQUE INDEX ON public.best (customer);

CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  -- PostgreSQL database dump complete
  INSERT INTO audit.log (what) VALUES (TG_OP || ' $$ ');
  RETURN NEW;
END
$body$;
CREATE TRIGGER note AFTER INSERT ON public.customers FOR EACH ROW EXECUTE FUNCTION audit.note();
CREATE FUNCTION public.add(a int, b int DEFAULT 1) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a + b; END;
CREATE PROCEDURE public.nothing() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE public.product(int) (SFUNC = int4mul, STYPE = int, INITCOND = '1');
CREATE RULE quiet AS ON INSERT TO public.empty DO INSTEAD NOTHING;
CREATE STATISTICS public.some_statistics (dependencies) ON a, b FROM public.empty;
ALTER TABLE audit.log ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON audit.log USING (what LIKE 'event 1%');
COMMENT ON TABLE public.customers IS E'-- PostgreSQL database dump complete\n\\.';
COMMENT ON COLUMN public.customers.name IS '$$ $_$ ''';
SELECT lo_from_bytea(0, 'one'), lo_from_bytea(0, '\x5c2e0a0a0a'), lo_create(0);
COMMENT ON TABLE public.empty IS NULL;
