-- One line a table: its rows and a hash over all they hold. Equal lines, equal data.
SELECT 'customers: ' || count(*) || ' rows, ' || md5(string_agg(md5(c::text), '' ORDER BY c.id)) FROM customers c
UNION ALL
SELECT 'orders: ' || count(*) || ' rows, ' || md5(string_agg(md5(o::text), '' ORDER BY o.id)) FROM orders o
UNION ALL
SELECT 'revenue: ' || count(*) || ' rows, ' || md5(string_agg(md5(r::text), '' ORDER BY r.customer)) FROM revenue r
ORDER BY 1;
