//! Ways to a server by other addresses: by IPv6, and through an HTTP proxy as companies have them.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is part of tests")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A port of `[::1]` that leads to a port of `127.0.0.1`; none where this machine has no IPv6.
pub fn by_ipv6(server: u16) -> Option<u16> {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) {
                std::thread::spawn(move || join(client, upstream));
            }
        }
    });
    Some(port)
}

/// An HTTP proxy: it tunnels (`CONNECT`) and forwards (`GET http://…`), whatever host it is asked for, to one server.
pub struct HttpProxy {
    port: u16,
    /// The first line of each request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl HttpProxy {
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let taken = asked.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let taken = taken.clone();
                std::thread::spawn(move || serve(client, server, &taken));
            }
        });
        Self { port, asked }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, server: u16, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let head = read_head(&mut client)?;
    let (line, headers) = head.split_once("\r\n").ok_or(io::ErrorKind::InvalidData)?;
    asked.lock().unwrap().push(line.to_owned());
    let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server))?;
    if line.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    } else {
        // `GET http://host:port/path HTTP/1.1`: the server is given the path alone, and one request a connection.
        let mut words = line.split(' ');
        let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap_or(url);
        let headers: String = headers
            .lines()
            .filter(|h| !h.is_empty() && !h.to_lowercase().starts_with("connection:"))
            .fold(String::new(), |all, header| all + header + "\r\n");
        write!(upstream, "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")?;
    }
    join(client, upstream);
    Ok(())
}

fn read_head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Passes bytes both ways until either side has ended.
fn join(client: TcpStream, upstream: TcpStream) {
    let (mut from_client, mut to_upstream) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_upstream);
        let _ = to_upstream.shutdown(Shutdown::Write);
    });
    let (mut from_upstream, mut to_client) = (upstream, client);
    let _ = io::copy(&mut from_upstream, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
}
