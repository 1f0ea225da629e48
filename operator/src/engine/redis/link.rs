//! A connection to a server: TCP or TLS, commands and replies, on a thread that it blocks. Talks to the server.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_crds::{Reason, TlsMode, TlsSpec};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::resp::{self, Reply};
use super::trouble::NO_HANDSHAKE;
use super::{tls, trouble};
use crate::task::{Failure, Mounts, bare_host, host_before_port};

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a command may take. A server that flushes or saves may answer late.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);
/// Either, where a server is put back in order in a hurry.
const HURRIED_LIMIT: Duration = Duration::from_secs(3);
/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", host_before_port(&self.host), self.port)
    }
}

/// How to log in to the servers of a source or target.
#[derive(Clone)]
pub(super) struct Login {
    /// The one that was named.
    pub address: Address,
    mode: TlsMode,
    tls: Option<Arc<ClientConfig>>,
    user: Option<String>,
    password: Option<String>,
    connect_limit: Duration,
    answer_limit: Duration,
}

impl Login {
    /// Reads the mounted Secret and certificates.
    pub fn prepare(host: &str, port: i32, spec: &TlsSpec, mounts: &Mounts) -> Result<Self, Failure> {
        let invalid = |why: String| {
            Failure::new(Reason::InvalidConfiguration, format!("redis at {}:{port}: {why}", host_before_port(host)))
        };
        let port = u16::try_from(port).map_err(|_| invalid(format!("{port} is no port")))?;
        let (user, password) = match &mounts.credentials {
            Some(folder) => {
                let user = secret(folder, "username").map_err(&invalid)?.filter(|user| !user.is_empty());
                let password = secret(folder, "password").map_err(&invalid)?;
                (user, Some(password.ok_or_else(|| invalid("the Secret has no password".to_owned()))?))
            }
            None => (None, None),
        };
        Ok(Self {
            address: Address { host: bare_host(host).to_owned(), port },
            mode: spec.mode,
            tls: tls::config(spec.mode, mounts.ca.as_deref())
                .map_err(|failure| failure.about(&format!("redis at {}:{port}", host_before_port(host))))?,
            user,
            password,
            connect_limit: CONNECT_LIMIT,
            answer_limit: ANSWER_LIMIT,
        })
    }

    /// The same for someone who cannot wait.
    pub fn hurried(&self) -> Self {
        Self { connect_limit: HURRIED_LIMIT, answer_limit: HURRIED_LIMIT, ..self.clone() }
    }

    /// The same for another server of the same cluster.
    pub fn at(&self, address: Address) -> Self {
        Self { address, ..self.clone() }
    }

    /// Connects and logs in. Blocks.
    pub fn connect(&self) -> Result<Link, Failure> {
        let place = self.address.to_string();
        let mut link = self.open().map_err(|error| trouble::unreachable(&place, &error))?;
        if let Some(password) = &self.password {
            let words = match &self.user {
                Some(user) => link.call(&["AUTH", user, password]),
                None => link.call(&["AUTH", password]),
            };
            match words? {
                Reply::Simple(_) => {}
                // The server wants none.
                Reply::Error(words) if words.contains("without any password configured") => {}
                Reply::Error(words) if words.contains("no password is set") => {}
                reply => return Err(link.refused("AUTH", &reply, Reason::SourceRefused)),
            }
        }
        Ok(link)
    }

    fn open(&self) -> io::Result<Link> {
        let stream = match (self.mode, &self.tls) {
            (TlsMode::Disable, _) | (_, None) => Stream::Plain(self.tcp()?),
            (TlsMode::Prefer, Some(config)) => {
                // Nothing secret is said before it is known what is spoken here.
                if speaks_plainly(&self.tcp()?)? {
                    Stream::Plain(self.tcp()?)
                } else {
                    self.encrypt(config, self.tcp()?)?
                }
            }
            (_, Some(config)) => self.encrypt(config, self.tcp()?)?,
        };
        Ok(Link { stream, place: self.address.to_string(), input: Vec::new(), at: 0 })
    }

    fn tcp(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for address in (self.address.host.as_str(), self.address.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.connect_limit) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(self.answer_limit))?;
                    stream.set_write_timeout(Some(self.answer_limit))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn encrypt(&self, config: &Arc<ClientConfig>, tcp: TcpStream) -> io::Result<Stream> {
        let invalid = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let name = ServerName::try_from(self.address.host.clone()).map_err(|error| invalid(&error))?;
        let connection = ClientConnection::new(config.clone(), name).map_err(|error| invalid(&error))?;
        let mut stream = StreamOwned::new(connection, tcp);
        // A server that does not speak TLS takes its beginning for a command that is not complete yet, and waits for the rest.
        stream.sock.set_read_timeout(Some(self.connect_limit))?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    let waited = self.connect_limit.as_secs();
                    io::Error::new(io::ErrorKind::TimedOut, format!("{NO_HANDSHAKE} within {waited} s"))
                }
                _ => error,
            })?;
        }
        stream.sock.set_read_timeout(Some(self.answer_limit))?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// Whether a server answers without encryption. One that wants TLS closes, or sends an alert.
fn speaks_plainly(mut stream: &TcpStream) -> io::Result<bool> {
    stream.write_all(b"PING\r\n")?;
    let mut first = [0; 1];
    match stream.read(&mut first) {
        Ok(read) => Ok(read == 1 && matches!(first[0], b'+' | b'-')),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
        Err(error) => Err(error),
    }
}

/// A mounted Secret's key, without the newline that people leave at its end; none where it is not mounted.
fn secret(folder: &Path, key: &str) -> Result<Option<String>, String> {
    match fs::read_to_string(folder.join(key)) {
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("the {key} in the Secret cannot be read: {error}")),
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all(bytes),
            Self::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }
}

/// Ends a connection when it is dropped, so that a thread that waits on it goes on.
pub(super) struct Hangup(Option<TcpStream>);

impl Hangup {
    /// Of a connection's socket.
    pub fn of(tcp: &TcpStream) -> Self {
        Self(tcp.try_clone().ok())
    }

    /// The thread came back by itself: the connection stays.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Hangup {
    fn drop(&mut self) {
        if let Some(tcp) = &self.0 {
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
}

/// A connection that is logged in.
pub(super) struct Link {
    stream: Stream,
    place: String,
    input: Vec<u8>,
    at: usize,
}

impl Link {
    /// The server, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Our own address on the way to the server.
    pub fn own_address(&self) -> io::Result<IpAddr> {
        let address = self.stream.tcp().local_addr().map(|address: SocketAddr| address.ip())?;
        Ok(match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        })
    }

    /// Ends the connection when dropped.
    pub fn hangup(&self) -> Hangup {
        Hangup::of(self.stream.tcp())
    }

    /// How long a read may take.
    pub fn set_answer_limit(&self, limit: Duration) -> Result<(), Failure> {
        self.stream.tcp().set_read_timeout(Some(limit)).map_err(|error| self.broke(&error))
    }

    /// Sends a command and waits for its reply.
    pub fn call(&mut self, arguments: &[&str]) -> Result<Reply, Failure> {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        let mut out = Vec::new();
        resp::command(&mut out, &arguments);
        self.send(&out)?;
        self.reply()
    }

    /// A command whose reply must be no error.
    pub fn must(&mut self, arguments: &[&str], otherwise: Reason) -> Result<Reply, Failure> {
        match self.call(arguments)? {
            reply @ Reply::Error(_) => Err(self.refused(&name_of(arguments), &reply, otherwise)),
            reply => Ok(reply),
        }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).map_err(|error| self.broke(&error))
    }

    /// Waits for the next reply.
    pub fn reply(&mut self) -> Result<Reply, Failure> {
        loop {
            match Reply::parse(&self.input[self.at..]) {
                Ok(Some((reply, taken))) => {
                    self.at += taken;
                    if self.at == self.input.len() {
                        self.input.clear();
                        self.at = 0;
                    }
                    return Ok(reply);
                }
                Ok(None) => self.fill()?,
                Err(words) => {
                    return Err(self.broke(&io::Error::new(io::ErrorKind::InvalidData, words)));
                }
            }
        }
    }

    /// Waits for the next line, without its end; of a keepalive that is nothing.
    pub fn line(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input[self.at..]) {
                let line = &self.input[self.at..self.at + end];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.at += end + 1;
                return Ok(line);
            }
            if self.input.len() - self.at > READ_BYTES {
                return Err(self.broke(&io::Error::new(io::ErrorKind::InvalidData, "a line has no end")));
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), Failure> {
        if self.at > 0 {
            self.input.drain(..self.at);
            self.at = 0;
        }
        let old = self.input.len();
        self.input.resize(old + READ_BYTES, 0);
        let read = self.stream.read(&mut self.input[old..]);
        self.input.truncate(old + read.as_ref().map_or(0, |read| *read));
        match read {
            Ok(0) => Err(self.broke(&io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.broke(&error)),
        }
    }

    /// The server's refusal as a failure.
    pub fn refused(&self, command: &str, reply: &Reply, otherwise: Reason) -> Failure {
        let words = match reply {
            Reply::Error(words) => words.clone(),
            other => format!("an answer that is not understood: {other:?}"),
        };
        trouble::refused(&self.place, command, &words, otherwise)
    }

    fn broke(&self, error: &io::Error) -> Failure {
        trouble::unreachable(&self.place, error)
    }
}

/// What is left after the lines: a stream of bytes.
impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.input.len() {
            let taken = (self.input.len() - self.at).min(buffer.len());
            buffer[..taken].copy_from_slice(&self.input[self.at..self.at + taken]);
            self.at += taken;
            return Ok(taken);
        }
        self.stream.read(buffer)
    }
}

/// The command's name and subcommand: what may be told. Arguments may be secret.
fn name_of(arguments: &[&str]) -> String {
    let words = if matches!(arguments.first(), Some(&("CONFIG" | "FUNCTION" | "CLUSTER" | "CLIENT" | "MODULE"))) {
        2
    } else {
        1
    };
    arguments.iter().take(words).copied().collect::<Vec<_>>().join(" ")
}
