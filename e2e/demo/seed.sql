-- A shop with enough in it to make losing it hurt: 250,000 rows of text in several scripts, JSON, bytes, numbers and times.
CREATE TABLE customers (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  name text NOT NULL,
  address jsonb NOT NULL,
  since timestamptz NOT NULL
);
CREATE TABLE orders (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  customer bigint NOT NULL REFERENCES customers,
  total numeric(12, 2) NOT NULL CHECK (total > 0),
  note text,
  receipt bytea NOT NULL
);
CREATE INDEX orders_by_customer ON orders (customer);
CREATE VIEW revenue AS SELECT customer, sum(total) AS total FROM orders GROUP BY customer;

INSERT INTO customers (name, address, since)
SELECT (ARRAY['Ana', 'Çelik', 'Дарья', '明美', 'Zoë'])[1 + i % 5] || ' ' || i,
  jsonb_build_object('street', 'No. ' || i % 900, 'city', (ARRAY['Łódź', 'Köln', '東京', 'Jakarta'])[1 + i % 4]),
  timestamptz '2020-01-01 00:00:00+00' + i * interval '61 minutes'
FROM generate_series(1, 50000) AS i;

INSERT INTO orders (customer, total, note, receipt)
SELECT 1 + i * 7919 % 50000, 1 + i * 31 % 100000 / 100.0, CASE WHEN i % 3 = 0 THEN 'gift 🎁 #' || i END, decode(md5(i::text), 'hex')
FROM generate_series(1, 200000) AS i;
