//! A client of Redis, as plain as the protocol (RESP2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Text(Vec<u8>),
    Error(String),
    Number(i64),
    Nothing,
    Elements(Vec<Answer>),
}

impl Answer {
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
            Self::Nothing => String::new(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(bytes) => bytes.clone(),
            other => panic!("no bytes: {other:?}"),
        }
    }

    pub fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            other => panic!("no number: {other:?}"),
        }
    }

    pub fn elements(&self) -> &[Self] {
        match self {
            Self::Elements(elements) => elements,
            other => panic!("no elements: {other:?}"),
        }
    }

    /// All of it as text, but for the fields that tell how long ago something was.
    pub fn shown_without_clocks(&self) -> String {
        match self {
            Self::Elements(elements) => {
                let mut shown = String::from("[");
                let mut skip = false;
                for element in elements {
                    if std::mem::take(&mut skip) {
                        continue;
                    }
                    let text = if let Self::Text(bytes) = element { String::from_utf8_lossy(bytes) } else { "".into() };
                    skip = matches!(&*text, "radix-tree-keys" | "radix-tree-nodes" | "idle" | "inactive");
                    shown.push_str(&element.shown_without_clocks());
                    shown.push(' ');
                }
                shown + "]"
            }
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        }
    }
}

/// A connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// A command as it travels.
fn encoded(command: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

impl Client {
    pub fn try_connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// A command that must not fail.
    pub fn run(&mut self, arguments: &[&str]) -> Answer {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.run_bytes(&arguments)
    }

    pub fn run_bytes(&mut self, arguments: &[&[u8]]) -> Answer {
        self.write(arguments).unwrap();
        self.answer_to(arguments)
    }

    /// The answer to a command that must not fail.
    fn answer_to(&mut self, command: &[&[u8]]) -> Answer {
        match self.answer().unwrap() {
            Answer::Error(words) => {
                let command = String::from_utf8_lossy(&command.join(&b' ')).chars().take(200).collect::<String>();
                panic!("{command}: {words}")
            }
            answer => answer,
        }
    }

    /// A command that may fail; none where the connection does.
    pub fn try_call(&mut self, arguments: &[&str]) -> Option<Answer> {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.write(&arguments).ok()?;
        self.answer().ok()
    }

    /// Many commands at once, whose answers do not matter unless they are errors.
    pub fn run_all(&mut self, commands: &[Vec<String>]) {
        self.run_each(commands.iter().map(|command| command.iter().map(String::as_bytes).collect()));
    }

    /// The answers to many commands, which go out hundreds at a time. None must fail.
    pub fn run_each<'a>(&mut self, commands: impl Iterator<Item = Vec<&'a [u8]>>) -> Vec<Answer> {
        let (commands, mut answers) = (commands.collect::<Vec<_>>(), Vec::new());
        for batch in commands.chunks(500) {
            let bytes = batch.iter().map(|command| encoded(command)).collect::<Vec<_>>().concat();
            self.stream.get_mut().write_all(&bytes).unwrap();
            answers.extend(batch.iter().map(|command| self.answer_to(command)));
        }
        answers
    }

    fn write(&mut self, arguments: &[&[u8]]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(&encoded(arguments))
    }

    fn answer(&mut self) -> std::io::Result<Answer> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let Some((&kind, rest)) = line.split_first() else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
        let text = String::from_utf8_lossy(rest).trim_end().to_owned();
        Ok(match kind {
            b'+' => Answer::Text(text.into_bytes()),
            b'-' => Answer::Error(text),
            b':' => Answer::Number(text.parse().unwrap()),
            b'$' => match text.parse::<i64>().unwrap() {
                -1 => Answer::Nothing,
                length => {
                    let mut bytes = vec![0; usize::try_from(length).unwrap() + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(bytes.len() - 2);
                    Answer::Text(bytes)
                }
            },
            b'*' => match text.parse::<i64>().unwrap() {
                -1 => Answer::Nothing,
                count => Answer::Elements((0..count).map(|_| self.answer()).collect::<Result<_, _>>()?),
            },
            _ => panic!("no answer: {line:?}"),
        })
    }
}
