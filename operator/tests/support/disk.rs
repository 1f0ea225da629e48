//! A small disk of a server's own, which a test can fill up: a tmpfs in the server's own mount namespace, gone with it. Needs root.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "it is part of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The disk of a running server.
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// The disk that a process has at `folder`, seen from outside.
    pub fn of(process: u32, folder: &Path) -> Self {
        let folder = PathBuf::from(format!("/proc/{process}/root")).join(folder.strip_prefix("/").unwrap());
        Self { folder }
    }

    /// How many bytes are free.
    pub fn free(&self) -> u64 {
        let told = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(&self.folder).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        told.split_whitespace().map(|number| number.parse::<u64>().unwrap()).product()
    }

    /// Takes room until only so many bytes are free.
    pub fn leave(&self, bytes: u64) {
        let taken = self.free().checked_sub(bytes).unwrap();
        let made = Command::new("fallocate").args(["-l", &taken.to_string()]).arg(self.ballast()).status().unwrap();
        assert!(made.success() && self.free() <= bytes, "{} bytes are free", self.free());
    }

    /// Gives it back.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

/// Begins a command that runs with a disk of this size at `folder`, as the same process: `program` and its arguments follow. `owner` is a
/// user's and group's number. What is in the folder `from` is put onto it.
pub fn with_disk(folder: &Path, mebibytes: u32, owner: (u32, u32), from: Option<&Path>) -> Command {
    let mut command = Command::new("unshare");
    let (user, group) = owner;
    let copy = if from.is_some() { "cp -a \"$1/.\" \"$0/\" && " } else { "" };
    let script = format!(
        "mount -t tmpfs -o size={mebibytes}m,mode=0700,uid={user},gid={group} tmpfs \"$0\" && {copy}shift && exec \"$@\""
    );
    command.args(["--mount", "--propagation=private", "--", "sh", "-c"]).arg(script).arg(folder);
    command.arg(from.unwrap_or(folder));
    command
}
