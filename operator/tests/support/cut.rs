//! A way to a server that can be cut.

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
}

impl Way {
    /// To the server at this port.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { left: AtomicU64::new(u64::MAX), ..State::default() });
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
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
