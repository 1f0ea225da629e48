//! What a file system says of a file, in the types of the archive. Talks to the file system.

use std::os::fd::AsFd;

use rustix::fs::{FileType, SeekFrom, Stat};
use rustix::io::Errno;

use crate::archive::tar::{BLOCK, Extent, Mtime};

/// A map of more extents than this is made coarser: small holes are stored as zeros.
const MAX_MAP: usize = 1 << 16;
/// Holes of fewer bytes in all are stored as zeros, which compress to nothing and which every tar reads; a map of them is read by some alone.
pub(super) const LEAST_HOLES: u64 = 64 << 20;
/// Attributes that belong to the node rather than to the file: what a restore writes gets those of its own place.
const FOREIGN_XATTRS: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];

/// An extended attribute: its name and its value.
pub(super) type Xattr = (Vec<u8>, Vec<u8>);

/// The attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: FileType,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) links: u64,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    /// Bytes that are allocated.
    pub(super) allocated: u64,
    pub(super) mtime: Mtime,
    pub(super) ctime: Mtime,
    pub(super) special: u64,
}

impl Facts {
    /// Of what `stat` says.
    #[allow(
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the fields' types differ from architecture to architecture; their values fit by the kernel's word"
    )]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            links: stat.st_nlink as u64,
            mode: stat.st_mode & 0o7777,
            uid: u64::from(stat.st_uid),
            gid: u64::from(stat.st_gid),
            size: stat.st_size as u64,
            allocated: stat.st_blocks as u64 * 512,
            mtime: Mtime { seconds: stat.st_mtime as i64, nanos: stat.st_mtime_nsec as u32 },
            ctime: Mtime { seconds: stat.st_ctime as i64, nanos: stat.st_ctime_nsec as u32 },
            special: stat.st_rdev as u64,
        }
    }

    /// Whether a file's content may have changed between these two looks at it.
    pub(super) fn differs(&self, later: &Self) -> bool {
        (self.device, self.inode, self.size, self.mtime) != (later.device, later.inode, later.size, later.mtime)
    }
}

/// The extended attributes of an open file, in the order of their names.
///
/// # Errors
/// Where they cannot be read. A file system without any has none.
pub(super) fn xattrs(file: impl AsFd) -> Result<Vec<Xattr>, Errno> {
    let mut names = Vec::new();
    // Most files have none: one question, no memory.
    match rustix::fs::flistxattr_query(&file) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(names),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let mut list = vec![0_u8; 64 * 1024];
    let length = rustix::fs::flistxattr(&file, &mut list[..])?;
    for name in list[..length].split(|b| *b == 0).filter(|n| !n.is_empty() && !FOREIGN_XATTRS.contains(n)) {
        // Twice asked, so that one that grows in between is not cut.
        let mut value = vec![0_u8; 64 * 1024];
        match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Gone since it was listed, or one that this user may list but not read (trusted.*).
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => continue,
            Err(error) => return Err(error),
        }
        value.shrink_to_fit();
        names.push((name.to_vec(), value));
    }
    names.sort_unstable();
    Ok(names)
}

/// Where the data of a file with holes is; none for a file without. In whole blocks, ascending, not touching.
pub(super) fn extents(file: impl AsFd, facts: &Facts) -> Result<Option<Vec<Extent>>, Errno> {
    if facts.allocated >= facts.size {
        return Ok(None);
    }
    let mut least_hole = BLOCK as u64;
    loop {
        match map(&file, facts.size, least_hole) {
            Ok(Some(extents)) => {
                let whole = extents.first().is_some_and(|e| e.offset == 0 && e.length == facts.size);
                return Ok((!whole).then_some(extents));
            }
            Ok(None) => least_hole *= 8,
            // A file system without the question; one that compresses has fewer blocks than bytes and no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// The map, with holes of at least `least_hole` bytes; none if it is larger than it may be.
fn map(file: impl AsFd, size: u64, least_hole: u64) -> Result<Option<Vec<Extent>>, Errno> {
    let block = BLOCK as u64;
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let hole = match rustix::fs::seek(&file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(size),
            // The file has become shorter.
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error),
        };
        let (begin, end) = (data / block * block, hole.next_multiple_of(block).min(size));
        match extents.last_mut() {
            Some(last) if begin < last.offset + last.length + least_hole => last.length = end - last.offset,
            _ => extents.push(Extent { offset: begin, length: end - begin }),
        }
        if extents.len() > MAX_MAP {
            return Ok(None);
        }
        at = hole.max(at + 1);
    }
    extents.retain(|e| e.length > 0);
    Ok(Some(extents))
}
