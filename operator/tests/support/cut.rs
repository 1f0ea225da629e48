//! A way to a server that can be cut, and that may change what is said on it.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "it is part of tests")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A port in front of a server's.
pub struct Way {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    /// Bytes that may still pass, in both directions together.
    left: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
    /// What is put in the place of what.
    change: Option<(&'static str, &'static str)>,
}

impl Way {
    /// To the server at this port.
    pub fn to(server: u16) -> Self {
        Self::with(server, None)
    }

    /// To the server at this port, where the second is heard when the first is said, of the same length.
    pub fn changing(server: u16, said: &'static str, told: &'static str) -> Self {
        assert_eq!(said.len(), told.len());
        Self::with(server, Some((said, told)))
    }

    fn with(server: u16, change: Option<(&'static str, &'static str)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { left: AtomicU64::new(u64::MAX), change, ..State::default() });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.cut.load(Ordering::Acquire) {
                    continue;
                }
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to, state) = (from.try_clone().unwrap(), to.try_clone().unwrap(), shared.clone());
                    shared.streams.lock().unwrap().push(from.try_clone().unwrap());
                    std::thread::spawn(move || pass(from, to, &state));
                }
            }
        });
        Self { port, state }
    }

    /// Lets so many bytes pass, and then nothing any more.
    pub fn cut_after(&self, bytes: u64) {
        self.state.left.store(bytes, Ordering::Release);
    }

    /// Cuts it now.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Whether it has been cut.
    pub fn is_cut(&self) -> bool {
        self.state.cut.load(Ordering::Acquire)
    }
}

impl State {
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.state.cut();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 65_536];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            break;
        }
        if state.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(read as u64)).is_err() {
            state.cut();
            break;
        }
        if let Some((said, told)) = state.change
            && let Some(at) = memchr::memmem::find(&buffer[..read], said.as_bytes())
        {
            buffer[at..at + said.len()].copy_from_slice(told.as_bytes());
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
