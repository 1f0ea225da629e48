//! Whether two names mean one server, as far as names tell. Pure.

use super::bare_host;

/// What a cluster's DNS puts behind the name of a Service and its namespace.
const SERVICE: [&str; 2] = [".svc.cluster.local", ".svc"];

/// The same for all ways to write a server's address in a namespace: `db`, `db.shop`, `db.shop.svc`, `DB.shop.svc.cluster.local.`
pub fn server_key(host: &str, port: i32, namespace: &str) -> String {
    let host = bare_host(host).trim_end_matches('.').to_ascii_lowercase();
    if host.parse::<std::net::IpAddr>().is_ok() || host == "localhost" {
        return format!("{host} {port}");
    }
    let short = SERVICE.iter().find_map(|domain| host.strip_suffix(domain)).unwrap_or(&host);
    let full = if short.contains('.') { short.to_owned() } else { format!("{short}.{namespace}") };
    format!("{full} {port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_one_key_however_it_is_written() {
        let key = server_key("db", 5432, "shop");
        for host in ["DB", "db.shop", "db.shop.svc", "db.shop.svc.cluster.local", "db.shop.svc.cluster.local."] {
            assert_eq!(server_key(host, 5432, "shop"), key, "{host}");
        }
        for (host, port) in [("db", 5433), ("db.other", 5432), ("db2", 5432), ("db.example.com", 5432)] {
            assert_ne!(server_key(host, port, "shop"), key, "{host}");
        }
        assert_eq!(server_key("[::1]", 1, "shop"), server_key("::1", 1, "other"));
    }
}
