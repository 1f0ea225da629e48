//! Runs that were found in the bucket, packed so that fifty of them fit into a termination message. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the bucket holds of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Packed", try_from = "Packed")]
pub struct CatalogueReport {
    /// Complete runs that were not known, the newest first.
    pub runs: Vec<FoundRun>,
    /// How many older ones were left out.
    pub more: usize,
    /// Of the runs that were expected, those that are there, as stretches of what was expected.
    pub there: Vec<Span>,
    /// Of the runs that were expected, those that are gone. What is in neither could not be told.
    pub gone: Vec<Span>,
}

/// The expected runs from one to another, both included, as their folders sort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first, the oldest.
    pub from: String,
    /// The last, the newest.
    pub to: String,
}

impl Span {
    /// At most this many of each kind are told; the oldest ones are left out.
    pub const LIMIT: usize = 8;

    /// Whether an expected run is among them.
    pub fn has(&self, run_id: &str) -> bool {
        self.from.as_str() <= run_id && run_id <= self.to.as_str()
    }

    /// The stretches of what is so, of runs in descending order.
    pub fn of<'a>(runs: impl Iterator<Item = (&'a str, bool)>) -> Vec<Self> {
        let mut spans: Vec<Self> = Vec::new();
        let mut goes_on = false;
        for (run_id, is_so) in runs {
            match spans.last_mut().filter(|_| is_so && goes_on) {
                Some(span) => run_id.clone_into(&mut span.from),
                None if is_so => spans.push(Self { from: run_id.to_owned(), to: run_id.to_owned() }),
                None => {}
            }
            goes_on = is_so;
        }
        spans.truncate(Self::LIMIT);
        spans
    }
}

/// A complete run in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRun {
    /// Its folder.
    pub run_id: String,
    /// UID of the cluster that made it.
    pub cluster: String,
    /// Names of its sources.
    pub sources: Vec<String>,
    /// When its first source began, to the second.
    pub start: Timestamp,
    /// When its last source was stored, to the second.
    pub end: Timestamp,
    /// Bytes in the bucket.
    pub stored_bytes: u64,
    /// Bytes before compression.
    pub source_bytes: u64,
    /// Tables, documents, keys or files.
    pub items: u64,
}

impl CatalogueReport {
    /// Leaves out the oldest run that it tells; false where it tells none.
    pub(super) fn leave_out_oldest(&mut self) -> bool {
        let had_one = self.runs.pop().is_some();
        self.more += usize::from(had_one);
        had_one
    }
}

/// As it travels: each run one text of numbers to the base 36, after its folder; clusters and sets of sources once.
#[derive(Clone, Serialize, Deserialize)]
struct Packed {
    clusters: Vec<String>,
    sources: Vec<Vec<String>>,
    runs: Vec<String>,
    #[serde(default)]
    more: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    there: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
}

fn packed(spans: Vec<Span>) -> Vec<String> {
    spans.into_iter().map(|span| format!("{} {}", span.from, span.to)).collect()
}

fn unpacked(spans: &[String]) -> Result<Vec<Span>, String> {
    let span = |text: &String| {
        let (from, to) = text.split_once(' ').ok_or_else(|| format!("not a stretch of runs: {text}"))?;
        Ok(Span { from: from.to_owned(), to: to.to_owned() })
    };
    spans.iter().map(span).collect()
}

impl From<CatalogueReport> for Packed {
    fn from(report: CatalogueReport) -> Self {
        let (there, gone) = (packed(report.there), packed(report.gone));
        let mut packed =
            Self { clusters: Vec::new(), sources: Vec::new(), runs: Vec::new(), more: report.more, there, gone };
        for run in report.runs {
            let seconds = |at: Timestamp| u64::try_from(at.as_second()).unwrap_or_default();
            let (cluster, sources) =
                (place(&mut packed.clusters, run.cluster), place(&mut packed.sources, run.sources));
            let took = seconds(run.end).saturating_sub(seconds(run.start));
            let numbers =
                [seconds(run.start), took, run.stored_bytes, run.source_bytes, run.items, cluster, sources].map(base36);
            packed.runs.push(format!("{} {}", run.run_id, numbers.join(" ")));
        }
        packed
    }
}

impl TryFrom<Packed> for CatalogueReport {
    type Error = String;

    fn try_from(packed: Packed) -> Result<Self, String> {
        let runs = packed.runs.iter().map(|text| unpack(&packed, text).ok_or_else(|| format!("not a run: {text}")));
        let (there, gone) = (unpacked(&packed.there)?, unpacked(&packed.gone)?);
        Ok(Self { runs: runs.collect::<Result<_, _>>()?, more: packed.more, there, gone })
    }
}

fn unpack(packed: &Packed, text: &str) -> Option<FoundRun> {
    let (run_id, numbers) = text.split_once(' ')?;
    let numbers: Option<Vec<u64>> = numbers.split(' ').map(|n| u64::from_str_radix(n, 36).ok()).collect();
    let [start, took, stored_bytes, source_bytes, items, cluster, sources] = numbers?.try_into().ok()?;
    let at = |seconds: u64| Timestamp::from_second(i64::try_from(seconds).ok()?).ok();
    Some(FoundRun {
        run_id: run_id.to_owned(),
        cluster: packed.clusters.get(usize::try_from(cluster).ok()?)?.clone(),
        sources: packed.sources.get(usize::try_from(sources).ok()?)?.clone(),
        start: at(start)?,
        end: at(start.checked_add(took)?)?,
        stored_bytes,
        source_bytes,
        items,
    })
}

/// Where the value is in the list, to which it is added if it is not.
fn place<T: PartialEq>(list: &mut Vec<T>, value: T) -> u64 {
    let found = list.iter().position(|v| *v == value).unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    });
    found as u64
}

fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::new();
    loop {
        text.push(DIGITS[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break text.iter().rev().map(|digit| char::from(*digit)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_crds::Reason;
    use proptest::prelude::*;

    use super::super::{Outcome, Report, TERMINATION_MESSAGE_LIMIT};
    use super::*;

    fn run(i: u64) -> FoundRun {
        let start = Timestamp::from_second(1_795_000_000 + i64::try_from(i).unwrap() * 86_400).unwrap();
        FoundRun {
            run_id: format!("202611{:02}T020000Z-3f9a{:02x}", i % 28 + 1, i),
            cluster: format!("7f1f1a0c-5f0b-4d3e-9a51-0c2f9d7e1b6{}", i % 2),
            sources: vec!["db".into(), "chat".into(), "uploads".into()],
            start,
            end: start + jiff::SignedDuration::from_secs(754),
            stored_bytes: 5_000_000_000_000 + i,
            source_bytes: 20_000_000_000_000 + i,
            items: 123_456_789,
        }
    }

    fn sent(catalogue: CatalogueReport) -> (usize, CatalogueReport) {
        let report = Report::completed("found ".repeat(100), Some(Outcome::Catalogue(catalogue)));
        let text = report.to_termination_message();
        let read = Report::from_termination_message(&text).unwrap();
        assert_eq!(read.reason, Reason::Completed);
        let Some(Outcome::Catalogue(read)) = read.outcome else { panic!("{text}") };
        (text.len(), read)
    }

    #[test]
    fn fifty_runs_of_terabytes_travel_in_one_message() {
        let all = CatalogueReport { runs: (0..50).rev().map(run).collect(), more: 7, ..CatalogueReport::default() };
        let (length, read) = sent(all.clone());
        assert!(length <= TERMINATION_MESSAGE_LIMIT, "{length}");
        assert_eq!(read, all);
    }

    #[test]
    fn of_what_does_not_fit_the_oldest_are_left_out_and_counted() {
        let wide = |i: u64| FoundRun { sources: vec![format!("{i}-{}", "x".repeat(36)); 8], ..run(i) };
        let span = Span { from: run(1).run_id, to: run(2).run_id };
        let all = CatalogueReport {
            runs: (0..50).rev().map(wide).collect(),
            more: 0,
            there: vec![span.clone(); Span::LIMIT],
            gone: vec![span; Span::LIMIT],
        };
        let (length, read) = sent(all.clone());
        assert!(length <= TERMINATION_MESSAGE_LIMIT && !read.runs.is_empty(), "{length}");
        assert_eq!(read.runs[..], all.runs[..read.runs.len()]);
        assert_eq!(read.more, 50 - read.runs.len());
        assert_eq!((read.there, read.gone), (all.there, all.gone), "what became of known runs is told before new ones");
    }

    #[test]
    fn stretches_hold_what_is_so_and_nothing_beside_it() {
        let runs: Vec<(String, bool)> =
            "1101000111".chars().rev().enumerate().map(|(i, c)| (format!("r{}", 9 - i), c == '1')).collect();
        let spans = Span::of(runs.iter().map(|(run, is_so)| (run.as_str(), *is_so)));
        let told: Vec<String> = spans.iter().map(|s| format!("{}-{}", s.from, s.to)).collect();
        assert_eq!(told, ["r7-r9", "r3-r3", "r0-r1"]);
        for (run, is_so) in &runs {
            assert_eq!(spans.iter().any(|s| s.has(run)), *is_so, "{run}");
        }
        assert_eq!(Span::of(std::iter::empty()), []);
    }

    proptest! {
        #[test]
        fn numbers_read_back(number in any::<u64>()) {
            prop_assert_eq!(u64::from_str_radix(&base36(number), 36), Ok(number));
        }

        #[test]
        fn no_text_makes_the_reader_panic(runs in prop::collection::vec(".*", 0..4), more in 0..9_usize) {
            let json = serde_json::json!({"clusters": ["c"], "sources": [["db"]], "runs": runs, "more": more});
            let _ = serde_json::from_value::<CatalogueReport>(json);
        }
    }
}
