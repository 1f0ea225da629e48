//! The two ends of a tool's pipes as blocking streams that notice when the tool is gone. Talks to the operating system.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Large pipes: fewer switches between the tool and us. No pipe holds more bytes.
pub const PIPE_BYTES: i32 = 1 << 20;
/// How long a pipe may stay open without moving a byte after its tool has ended: a grandchild holds it.
const DRAIN: Duration = Duration::from_secs(30);
/// How often a quiet pipe asks whether its tool has ended.
const LOOK_MILLIS: u16 = 500;
/// How long an empty or full pipe is left alone before we ask for it. Tools write and read a few KiB at once, and being woken for each of
/// these costs more than moving them; a large pipe holds what a tool moves in this time.
const GATHER: Duration = Duration::from_millis(1);

/// When the tool ended, once it has.
pub(super) type EndedAt = Arc<OnceLock<Instant>>;

/// A tool's standard output. Reads block; made for a blocking thread.
#[derive(Debug)]
pub struct ToolOutput {
    pipe: Pipe,
}

/// A tool's standard input. Writes block; made for a blocking thread. Dropping it is the end of the input.
#[derive(Debug)]
pub struct ToolInput {
    pipe: Pipe,
}

#[derive(Debug)]
struct Pipe {
    file: File,
    ended: EndedAt,
    quiet_since: Instant,
}

impl ToolOutput {
    pub(super) fn new(fd: OwnedFd, ended: EndedAt) -> io::Result<Self> {
        Ok(Self { pipe: Pipe::new(fd, ended)? })
    }
}

impl ToolInput {
    pub(super) fn new(fd: OwnedFd, ended: EndedAt) -> io::Result<Self> {
        Ok(Self { pipe: Pipe::new(fd, ended)? })
    }
}

impl Read for ToolOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pipe.until_ready(PollFlags::POLLIN, |mut file| file.read(buffer))
    }
}

impl Write for ToolInput {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.pipe.until_ready(PollFlags::POLLOUT, |mut file| file.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    fn new(fd: OwnedFd, ended: EndedAt) -> io::Result<Self> {
        // Past the user's quota of pipe memory the kernel refuses: the pipe then keeps its usual size.
        let _ = fcntl(&fd, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        // Only our end: the tool's end is a file description of its own and stays blocking.
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { file: File::from(fd), ended, quiet_since: Instant::now() })
    }

    fn until_ready(
        &mut self,
        interest: PollFlags,
        mut act: impl FnMut(&File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.quiet_since = Instant::now();
        loop {
            match act(&self.file) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(interest)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn wait(&self, interest: PollFlags) -> io::Result<()> {
        std::thread::sleep(GATHER);
        let fd: BorrowedFd<'_> = self.file.as_fd();
        let ready = poll(&mut [PollFd::new(fd, interest)], PollTimeout::from(LOOK_MILLIS));
        match ready {
            Ok(0) => {
                let Some(ended) = self.ended.get() else { return Ok(()) };
                let quiet_since = self.quiet_since.max(*ended);
                if quiet_since.elapsed() < DRAIN {
                    return Ok(());
                }
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the tool has ended but a process it started still holds its pipe",
                ))
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
