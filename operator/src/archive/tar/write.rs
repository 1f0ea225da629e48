//! Headers as they are written. Pure.

use super::sparse::{self, data_bytes};
use super::{
    BLOCK, Entry, Error, HOLES_AS_ZEROS, Kind, MAX_EXTENTS, MAX_NAME_BYTES, MAX_PAX_BYTES, Mtime, pax, printable,
};

/// What ends an archive: two blocks of zeros.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

const NAME: std::ops::Range<usize> = 0..100;
const LINK: std::ops::Range<usize> = 157..257;
const USER: std::ops::Range<usize> = 265..297;
const GROUP: std::ops::Range<usize> = 297..329;
const PREFIX: std::ops::Range<usize> = 345..500;
/// The largest number of a field of seven octal digits, and of one of eleven.
const MAX_SEVEN: u64 = 0o777_7777;
const MAX_ELEVEN: u64 = 0o777_7777_7777;

/// Appends everything that stands before the content of an entry: pax records where the plain header has no place, the header, the map
/// of a sparse file. What must follow are the bytes of the file (of a sparse one: of its extents) and [`padding`].
///
/// # Errors
/// Where the format has no place for the entry. Nothing is appended then.
pub fn header(entry: &Entry, out: &mut Vec<u8>) -> Result<(), Error> {
    check(entry)?;
    let mut records = Vec::new();
    let sparse_map = match &entry.kind {
        Kind::File { size, data: Some(extents) } => Some(sparse::map(*size, extents)),
        _ => None,
    };
    let stored = match (&entry.kind, &sparse_map) {
        (Kind::File { data: Some(extents), .. }, Some(map)) => map.len() as u64 + data_bytes(extents),
        (Kind::File { size, .. }, _) => *size,
        _ => 0,
    };
    let link: &[u8] = match &entry.kind {
        Kind::Symlink(target) | Kind::HardLink(target) => target,
        _ => b"",
    };

    let mut path = entry.path.clone();
    if entry.kind == Kind::Folder {
        path.push(b'/');
    }
    let mut block = [0_u8; BLOCK];
    let long = place_name(&mut block, &path) == Fits::No;
    let name_in_records = sparse_map.is_none() && (long || is_worth_a_record(&path));
    let link_in_records = link.len() > LINK.len() || is_worth_a_record(link);
    if records_need_charset(&path, long || sparse_map.is_some())
        || records_need_charset(link, link.len() > LINK.len())
        || records_need_charset(&entry.user, entry.user.len() > USER.len())
        || records_need_charset(&entry.group, entry.group.len() > GROUP.len())
    {
        pax::push(&mut records, b"hdrcharset", b"BINARY");
    }
    if name_in_records {
        pax::push(&mut records, b"path", &path);
    }
    if link_in_records {
        pax::push(&mut records, b"linkpath", link);
    }
    if entry.user.len() > USER.len() || is_worth_a_record(&entry.user) {
        pax::push(&mut records, b"uname", &entry.user);
    }
    if entry.group.len() > GROUP.len() || is_worth_a_record(&entry.group) {
        pax::push(&mut records, b"gname", &entry.group);
    }
    if entry.uid > MAX_SEVEN {
        pax::push(&mut records, b"uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > MAX_SEVEN {
        pax::push(&mut records, b"gid", entry.gid.to_string().as_bytes());
    }
    if stored > MAX_ELEVEN {
        pax::push(&mut records, b"size", stored.to_string().as_bytes());
    }
    if entry.mtime.nanos != 0 || plain_seconds(entry.mtime).is_none() {
        pax::push(&mut records, b"mtime", entry.mtime.to_string().as_bytes());
    }
    if let (Kind::File { size, .. }, Some(_)) = (&entry.kind, &sparse_map) {
        push_sparse(&mut records, &path, *size);
        place_stand_in(&mut block, b"GNUSparseFile.0", &path);
    }
    if entry.holes_as_zeros && matches!(entry.kind, Kind::File { data: None, .. }) {
        pax::push(&mut records, b"comment", HOLES_AS_ZEROS);
    }
    for (name, value) in &entry.xattrs {
        pax::push(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    if records.len() as u64 > MAX_PAX_BYTES {
        return Err(unwritable(entry, "its attributes are larger than a reader would take"));
    }
    if !records.is_empty() {
        append_records(out, &records, entry, &path);
    }

    put_octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
    put_octal(&mut block[108..116], if entry.uid > MAX_SEVEN { 0 } else { entry.uid });
    put_octal(&mut block[116..124], if entry.gid > MAX_SEVEN { 0 } else { entry.gid });
    put_octal(&mut block[124..136], if stored > MAX_ELEVEN { 0 } else { stored });
    put_octal(&mut block[136..148], plain_seconds(entry.mtime).unwrap_or(0));
    block[156] = match &entry.kind {
        Kind::File { .. } => b'0',
        Kind::HardLink(_) => b'1',
        Kind::Symlink(_) => b'2',
        Kind::Device { block: false, .. } => b'3',
        Kind::Device { block: true, .. } => b'4',
        Kind::Folder => b'5',
        Kind::Fifo => b'6',
    };
    put_text(&mut block[LINK], link);
    put_text(&mut block[USER], &entry.user);
    put_text(&mut block[GROUP], &entry.group);
    let (major, minor) = match &entry.kind {
        Kind::Device { major, minor, .. } => (*major, *minor),
        _ => (0, 0),
    };
    put_octal(&mut block[329..337], u64::from(major) & MAX_SEVEN);
    put_octal(&mut block[337..345], u64::from(minor) & MAX_SEVEN);
    seal(&mut block);
    out.extend_from_slice(&block);
    if let Some(map) = sparse_map {
        out.extend_from_slice(&map);
    }
    Ok(())
}

/// What says that a map stands before the content.
fn push_sparse(records: &mut Vec<u8>, path: &[u8], size: u64) {
    pax::push(records, b"GNU.sparse.major", b"1");
    pax::push(records, b"GNU.sparse.minor", b"0");
    pax::push(records, b"GNU.sparse.name", path);
    pax::push(records, b"GNU.sparse.realsize", size.to_string().as_bytes());
}

/// How many zeros follow a content of this many bytes.
pub fn padding(content: u64) -> usize {
    // Below 512, so it fits.
    usize::try_from(content.next_multiple_of(BLOCK as u64) - content).unwrap_or(0)
}

fn check(entry: &Entry) -> Result<(), Error> {
    let names = [&entry.path, &entry.user, &entry.group];
    let link = match &entry.kind {
        Kind::Symlink(target) | Kind::HardLink(target) => Some(target),
        _ => None,
    };
    if names.into_iter().chain(link).any(|name| name.contains(&0)) {
        return Err(unwritable(entry, "a name holds a NUL"));
    }
    if names.into_iter().chain(link).any(|name| name.len() >= MAX_NAME_BYTES) {
        return Err(unwritable(entry, "a name is longer than 64 KiB"));
    }
    if entry.path.is_empty() || link.is_some_and(Vec::is_empty) {
        return Err(unwritable(entry, "it has no name, or its link no target"));
    }
    if entry.xattrs.iter().any(|(name, _)| name.is_empty() || name.contains(&b'=') || name.contains(&0)) {
        return Err(unwritable(entry, "the name of an attribute holds an equals sign, which pax has no place for"));
    }
    if let Kind::File { size, data: Some(extents) } = &entry.kind {
        let mut end = 0;
        for extent in extents {
            if extent.offset < end || extent.offset.checked_add(extent.length).is_none_or(|end| end > *size) {
                return Err(unwritable(entry, "its extents are not in order, or reach beyond its end"));
            }
            end = extent.offset + extent.length;
            // GNU tar begins each extent with a new block and counts only its bytes.
            if !extent.length.is_multiple_of(BLOCK as u64) && end != *size {
                return Err(unwritable(entry, "its extents are not made of whole blocks"));
            }
        }
        if extents.len() >= MAX_EXTENTS {
            return Err(unwritable(entry, "it has more than a million extents"));
        }
    }
    Ok(())
}

fn unwritable(entry: &Entry, why: &'static str) -> Error {
    let name = entry.path.get(..200).unwrap_or(&entry.path);
    Error::Unwritable { name: printable(name), why }
}

/// A name that is UTF-8 but not ASCII is kept as a record too, which says how it is encoded; the plain header does not.
fn is_worth_a_record(name: &[u8]) -> bool {
    !name.is_ascii() && std::str::from_utf8(name).is_ok()
}

fn records_need_charset(name: &[u8], in_records: bool) -> bool {
    in_records && std::str::from_utf8(name).is_err()
}

fn append_records(out: &mut Vec<u8>, records: &[u8], entry: &Entry, path: &[u8]) {
    let mut block = [0_u8; BLOCK];
    place_stand_in(&mut block, b"PaxHeaders", path);
    put_octal(&mut block[100..108], 0o644);
    put_octal(&mut block[108..116], 0);
    put_octal(&mut block[116..124], 0);
    put_octal(&mut block[124..136], records.len() as u64);
    put_octal(&mut block[136..148], plain_seconds(entry.mtime).unwrap_or(0));
    block[156] = b'x';
    seal(&mut block);
    out.extend_from_slice(&block);
    out.extend_from_slice(records);
    out.resize(out.len() + padding(records.len() as u64), 0);
}

/// Seconds that the plain header has place for.
fn plain_seconds(mtime: Mtime) -> Option<u64> {
    u64::try_from(mtime.seconds).ok().filter(|s| *s <= MAX_ELEVEN)
}

#[derive(PartialEq)]
enum Fits {
    Yes,
    No,
}

/// Puts a name into the plain header, cut at a slash where it is longer than its field. What does not fit is cut off.
fn place_name(block: &mut [u8; BLOCK], path: &[u8]) -> Fits {
    if path.len() <= NAME.len() {
        put_text(&mut block[NAME], path);
        return Fits::Yes;
    }
    // The slash between prefix and name is in neither; a folder's own slash at the end must stay in the name.
    let last = path.len() - 1;
    let first = path.len().saturating_sub(NAME.len() + 1);
    let cut = (first.max(1)..=PREFIX.len().min(last.saturating_sub(1))).find(|at| path[*at] == b'/');
    if let Some(at) = cut {
        put_text(&mut block[PREFIX], &path[..at]);
        put_text(&mut block[NAME], &path[at + 1..]);
        return Fits::Yes;
    }
    put_text(&mut block[NAME], path);
    Fits::No
}

/// Puts a name in place of one that records tell: `<folder>/<word>/<name>`, cut to what fits. Readers without pax see it.
fn place_stand_in(block: &mut [u8; BLOCK], word: &[u8], path: &[u8]) {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let mut stand_in = [word, b"/"].concat();
    stand_in.extend_from_slice(name);
    stand_in.truncate(NAME.len());
    block[PREFIX].fill(0);
    block[NAME].fill(0);
    put_text(&mut block[NAME], &stand_in);
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits, filled up with zeros, and a NUL.
fn put_octal(field: &mut [u8], mut number: u64) {
    let digits = field.len() - 1;
    for place in field[..digits].iter_mut().rev() {
        *place = b'0' + u8::try_from(number & 7).unwrap_or(0);
        number >>= 3;
    }
}

/// Writes magic, version and the checksum: the sum of all bytes, its own eight counted as spaces.
fn seal(block: &mut [u8; BLOCK]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    put_octal(&mut block[148..155], sum);
    block[154] = 0;
    block[155] = b' ';
}
