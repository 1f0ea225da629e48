//! The worker as a primary: it waits for the target, proves that it is the target, and sends it a backup. Talks to the target.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_crds::Reason;
use tokio::net::TcpListener;
use tracing::debug;

use super::link::Hangup;
use super::target::SERVING_PORTS;
use crate::task::Failure;

/// How long a step of the handshake may take.
const STEP_LIMIT: Duration = Duration::from_secs(5);
/// How long the target may take to accept more of a backup: its disk may be slow.
const WRITE_LIMIT: Duration = Duration::from_mins(5);
/// More than any command of a replica has.
const LONGEST_COMMAND: usize = 64 << 10;

/// What came of someone who connected.
enum Met {
    /// The target, which waits for the backup.
    Target(TcpStream),
    /// It wants TLS.
    Encrypted,
    /// Somebody else.
    Stranger(String),
}

/// Where the worker waits.
pub(super) struct Serving {
    listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
}

impl Serving {
    /// Listens at the address by which the target knows the worker.
    pub async fn listen(own: IpAddr) -> Result<Self, Failure> {
        let mut last = None;
        for port in SERVING_PORTS {
            match TcpListener::bind((own, port)).await {
                Ok(listener) => return Ok(Self { listener, address: SocketAddr::new(own, port) }),
                Err(error) => last = Some(error),
            }
        }
        let error = last.map_or_else(|| "no port is free".to_owned(), |error| error.to_string());
        Err(Failure::new(Reason::RestoreFailed, format!("the worker cannot listen at {own}: {error}")))
    }

    /// Waits for the target, which alone knows `identity`: the replication id that it had as a primary. It gets `length` bytes next.
    ///
    /// # Errors
    /// Why replication is not possible.
    pub async fn target(self, identity: &str, length: u64) -> Result<TcpStream, String> {
        loop {
            let (stream, from) = self.listener.accept().await.map_err(|error| error.to_string())?;
            let stream = stream.into_std().map_err(|error| error.to_string())?;
            let hangup = Hangup::of(&stream);
            let identity = identity.to_owned();
            let met = tokio::task::spawn_blocking(move || meet(stream, &identity, length)).await;
            match met {
                Ok(Ok(Met::Target(stream))) => {
                    hangup.keep();
                    return Ok(stream);
                }
                Ok(Ok(Met::Encrypted)) => return Err("it wants TLS for replication".to_owned()),
                Ok(Ok(Met::Stranger(what))) => debug!(%from, what, "somebody else came"),
                Ok(Err(error)) => debug!(%from, %error, "somebody came and left"),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Talks to whoever connected, as a primary talks to a replica, up to the beginning of the transfer.
fn meet(mut stream: TcpStream, identity: &str, length: u64) -> io::Result<Met> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STEP_LIMIT))?;
    stream.set_write_timeout(Some(WRITE_LIMIT))?;
    let mut input = Vec::new();
    // A replica says five things, and one more of each newer version.
    for _ in 0..20 {
        let words = loop {
            if input.first() == Some(&0x16) {
                return Ok(Met::Encrypted);
            }
            if let Some((words, taken)) = command(&input)? {
                input.drain(..taken);
                break words;
            }
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece)?;
            if read == 0 || input.len() > LONGEST_COMMAND {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            input.extend_from_slice(&piece[..read]);
        };
        let name = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
        match name.as_str() {
            "PING" => stream.write_all(b"+PONG\r\n")?,
            // Whatever it thinks its primary wants to hear.
            "AUTH" | "REPLCONF" => stream.write_all(b"+OK\r\n")?,
            "PSYNC" if words.get(1).is_some_and(|told| told == identity) && !identity.is_empty() => {
                let ours: String = (0..40).map(|_| fastrand::digit(16)).collect();
                stream.write_all(format!("+FULLRESYNC {ours} 0\r\n${length}\r\n").as_bytes())?;
                return Ok(Met::Target(stream));
            }
            _ => {
                stream.write_all(b"-ERR this is for somebody else\r\n")?;
                return Ok(Met::Stranger(name));
            }
        }
    }
    Ok(Met::Stranger("it does not come to the point".to_owned()))
}

/// The first command in `input`, as newer or older servers write it, and its length.
fn command(input: &[u8]) -> io::Result<Option<(Vec<String>, usize)>> {
    use super::resp::Reply;
    let invalid = |words: String| io::Error::new(io::ErrorKind::InvalidData, words);
    if input.first() == Some(&b'*') {
        return Ok(Reply::parse(input)
            .map_err(invalid)?
            .map(|(reply, taken)| (reply.elements().iter().filter_map(Reply::text).collect(), taken)));
    }
    let Some(end) = memchr::memchr(b'\n', input) else { return Ok(None) };
    let line = String::from_utf8_lossy(&input[..end]);
    Ok(Some((line.split_whitespace().map(str::to_owned).collect(), end + 1)))
}

/// What is written to the target. Remembers whether it was the target that broke off.
pub(super) struct Sending {
    stream: TcpStream,
    broke: Arc<AtomicBool>,
}

impl Sending {
    /// To the target.
    pub fn new(stream: &TcpStream, broke: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Self { stream: stream.try_clone()?, broke })
    }
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes).inspect_err(|_| self.broke.store(true, Ordering::Release))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_newer_and_older_replicas_are_understood() {
        let (words, taken) = command(b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\nmore").unwrap().unwrap();
        assert_eq!((words, taken), (vec!["PSYNC".to_owned(), "?".into(), "-1".into()], 30));
        let (words, taken) = command(b"REPLCONF listening-port 6379\r\n").unwrap().unwrap();
        assert_eq!((words.len(), taken), (3, 30));
        assert!(command(b"*1\r\n$4\r\nPI").unwrap().is_none());
        assert!(command(b"PI").unwrap().is_none());
    }

    #[tokio::test]
    async fn only_who_knows_the_identity_gets_the_backup() {
        let serving = Serving::listen("127.0.0.1".parse().unwrap()).await.unwrap();
        let address = serving.address;
        let ask = |identity: &'static str| {
            tokio::task::spawn_blocking(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                write!(stream, "PING\r\nAUTH secret\r\nREPLCONF capa eof\r\nPSYNC {identity} 1\r\n").unwrap();
                let mut answer = [0; 200];
                let mut text = String::new();
                while !text.contains("-ERR") && !text.contains("$7\r\n") {
                    let read = stream.read(&mut answer).unwrap();
                    text.push_str(std::str::from_utf8(&answer[..read]).unwrap());
                    if read == 0 {
                        break;
                    }
                }
                text
            })
        };
        let waiting = tokio::spawn(serving.target("right", 7));
        assert!(ask("wrong").await.unwrap().contains("-ERR this is for somebody else"));
        assert!(ask("?").await.unwrap().contains("-ERR"));
        let answer = ask("right").await.unwrap();
        assert!(
            answer.starts_with("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC ") && answer.ends_with(" 0\r\n$7\r\n"),
            "{answer}"
        );
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_target_that_wants_tls_is_told_apart() {
        let serving = Serving::listen("127.0.0.1".parse().unwrap()).await.unwrap();
        let mut stream = TcpStream::connect(serving.address).unwrap();
        stream.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
        assert!(serving.target("right", 7).await.unwrap_err().contains("TLS"));
    }
}
