//! A proxy in front of an S3 server that lies, breaks off or loses answers, as the test says.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is part of tests")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A request's head and its body.
pub type Request = (String, Vec<u8>);

/// What becomes of a request.
pub enum Fate {
    /// It passes, and so does its answer.
    Pass,
    /// It passes, and its answer comes changed.
    Alter(Box<dyn FnOnce(Vec<u8>) -> Vec<u8>>),
    /// It passes, and of its answer only this many bytes come.
    CutAfter(usize),
    /// The same, and the connection is reset rather than closed.
    ResetAfter(usize),
    /// It passes, and of its answer only this many bytes come, and then nothing, for as long as the proxy lives.
    HangAfter(usize),
    /// It passes as slowly as this many bytes a second, and so does its answer.
    Slow(usize),
    /// It reaches the server changed: its head, all of it, and its body.
    Forge(Box<dyn FnOnce(Request) -> Request>),
    /// Of its body this many bytes are read, and then the connection is reset.
    Break(usize),
    /// It never reaches the server; this comes instead: a status, maybe with headers after it on lines of their own, and a body.
    Answer(&'static str, String),
    /// It never reaches the server, and nothing comes, for as long as the proxy lives.
    Hang,
    /// It passes if it has this header; else a status and a body come instead.
    Demand(&'static str, &'static str, String),
}

/// A running proxy.
pub struct Proxy {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Proxy {
    /// In front of `server`; `decide` is given the request's first line (`GET /bucket/key?query HTTP/1.1`) and how many came before it.
    pub fn start(server: u16, decide: impl Fn(&str, usize) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, decide, count) = (stop.clone(), Arc::new(decide), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (stopped, decide, count) = (stopped.clone(), decide.clone(), count.clone());
                std::thread::spawn(move || {
                    let _ = serve(&client, server, &*decide, &count, &stopped);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, stop }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// One request a connection.
fn serve(
    mut client: &TcpStream,
    server: u16,
    decide: &(dyn Fn(&str, usize) -> Fate + Send + Sync),
    count: &AtomicUsize,
    stopped: &AtomicBool,
) -> io::Result<()> {
    let head = read_head(client)?;
    let text = String::from_utf8_lossy(&head).into_owned();
    let (line, headers) = text.split_once("\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let length: u64 = headers
        .lines()
        .filter_map(|l| l.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap());
    let fate = match decide(line, count.fetch_add(1, Ordering::Relaxed)) {
        Fate::Demand(header, status, body) => {
            let mut names = headers.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name);
            if names.any(|name| name.eq_ignore_ascii_case(header)) { Fate::Pass } else { Fate::Answer(status, body) }
        }
        fate => fate,
    };
    // Who closes a connection with a byte unread resets it.
    if !matches!(fate, Fate::ResetAfter(_)) {
        client.read_exact(&mut [0])?;
    }
    match &fate {
        Fate::Hang => {
            hold(stopped);
            return Ok(());
        }
        Fate::Break(bytes) => {
            // At least one of them stays unread.
            let read = (*bytes as u64).min(length.saturating_sub(1));
            return io::copy(&mut client.take(read), &mut io::sink()).map(drop);
        }
        Fate::Answer(status, body) => {
            io::copy(&mut client.take(length), &mut io::sink())?;
            return write!(
                client,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
        _ => {}
    }
    let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server))?;
    let head = format!("{line}\r\nConnection: close\r\n{headers}\n");
    match fate {
        Fate::Forge(forge) => {
            let mut body = Vec::new();
            client.take(length).read_to_end(&mut body)?;
            let (head, body) = forge((head, body));
            write!(upstream, "{head}")?;
            upstream.write_all(&body)?;
            return io::copy(&mut upstream, &mut client).map(drop);
        }
        Fate::Slow(rate) => {
            write!(upstream, "{head}")?;
            trickle(&mut client.take(length), &mut upstream, rate)?;
            return trickle(&mut upstream, &mut client, rate);
        }
        _ => {}
    }
    write!(upstream, "{head}")?;
    io::copy(&mut client.take(length), &mut upstream)?;
    match fate {
        Fate::CutAfter(bytes) | Fate::ResetAfter(bytes) => {
            io::copy(&mut upstream.take(bytes as u64), &mut client).map(drop)
        }
        Fate::HangAfter(bytes) => {
            io::copy(&mut upstream.take(bytes as u64), &mut client)?;
            hold(stopped);
            Ok(())
        }
        Fate::Alter(alter) => {
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer)?;
            client.write_all(&alter(answer))
        }
        _ => io::copy(&mut upstream, &mut client).map(drop),
    }
}

/// Keeps the connection open and silent.
fn hold(stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Four pieces a second.
fn trickle(from: &mut impl Read, to: &mut impl Write, rate: usize) -> io::Result<()> {
    loop {
        let mut piece = Vec::new();
        from.take((rate / 4).max(1) as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(());
        }
        to.write_all(&piece)?;
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// All of it but for the last line feed.
fn read_head(mut client: &TcpStream) -> io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r") {
        if client.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    Ok(head)
}

/// An answer with another body, and the length that fits it.
pub fn with_body(answer: &[u8], change: impl FnOnce(String) -> String) -> Vec<u8> {
    let text = String::from_utf8(answer.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = change(if chunked { unchunk(body) } else { body.to_owned() });
    let kept = head.lines().filter(|l| {
        let name = l.to_ascii_lowercase();
        !name.starts_with("content-length:") && !name.starts_with("transfer-encoding:")
    });
    format!("{}\r\nContent-Length: {}\r\n\r\n{body}", kept.collect::<Vec<_>>().join("\r\n"), body.len()).into_bytes()
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    whole
}
