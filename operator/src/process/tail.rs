//! The last lines a tool wrote to its standard error, made fit for a message. Pure.

use std::collections::VecDeque;
use std::fmt::Write;

/// Bytes of a tool's standard error that are kept.
const KEPT: usize = 4096;
/// Characters of one line that are kept.
const LINE: usize = 512;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = if bytes.len() > KEPT {
            self.cut = true;
            &bytes[bytes.len() - KEPT..]
        } else {
            bytes
        };
        let over = (self.bytes.len() + bytes.len()).saturating_sub(KEPT);
        if over > 0 {
            self.cut = true;
            self.bytes.drain(..over);
        }
        self.bytes.extend(bytes);
    }

    /// What was kept, as text: whole lines, control characters escaped, long lines cut.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let whole = match text.split_once('\n') {
            Some((_, rest)) if self.cut && !rest.trim().is_empty() => rest,
            _ => &text,
        };
        whole.lines().map(str::trim_end).filter(|l| !l.is_empty()).map(cut_line).collect::<Vec<_>>().join("\n")
    }
}

fn cut_line(line: &str) -> String {
    let mut text: String = line.chars().take(LINE).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    escape(&text)
}

/// The text with control characters (also those that turn the direction of writing) as escapes, so that no terminal or log acts on them.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c == '\t' {
            escaped.push(' ');
        } else if c.is_control() || turns {
            let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_lines_are_kept() {
        let mut tail = Tail::default();
        for i in 0..2000 {
            tail.push(format!("line {i}\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.len() <= KEPT);
        assert!(text.ends_with("line 1999"));
        assert!(text.starts_with("line "), "{}", &text[..20]);
    }

    #[test]
    fn a_single_endless_line_is_cut() {
        let mut tail = Tail::default();
        tail.push(&vec![b'x'; 100_000]);
        assert_eq!(tail.text().chars().count(), LINE + 1);
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut tail = Tail::default();
        tail.push(b"\x1b[31mred\x07\xff \xe2\x80\xae\n");
        assert_eq!(tail.text(), "\\u{1b}[31mred\\u{7}\u{fffd} \\u{202e}");
    }
}
