//! Ports that stay a server's own while the server is down.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

/// A port that was free a moment ago, and that the kernel gives to nobody by itself: between a server's end and its next start no connection
/// of another test gets it.
pub fn lasting() -> u16 {
    // Those of a kubelet and of Services are left out.
    const OURS: std::ops::Range<u16> = 12_000..30_000;
    let given = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_given: u16 = given.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(u16::MAX);
    // Where the kernel gives away all of them, any will do.
    let end = if first_given > OURS.start { OURS.end.min(first_given) } else { OURS.end };
    loop {
        let port = fastrand::u16(OURS.start..end);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
