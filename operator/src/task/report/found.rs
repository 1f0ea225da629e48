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
}

impl From<CatalogueReport> for Packed {
    fn from(report: CatalogueReport) -> Self {
        let mut packed = Self { clusters: Vec::new(), sources: Vec::new(), runs: Vec::new(), more: report.more };
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
        Ok(Self { runs: runs.collect::<Result<_, _>>()?, more: packed.more })
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
        let all = CatalogueReport { runs: (0..50).rev().map(run).collect(), more: 7 };
        let (length, read) = sent(all.clone());
        assert!(length <= TERMINATION_MESSAGE_LIMIT, "{length}");
        assert_eq!(read, all);
    }

    #[test]
    fn of_what_does_not_fit_the_oldest_are_left_out_and_counted() {
        let wide = |i: u64| FoundRun { sources: vec![format!("{i}-{}", "x".repeat(36)); 8], ..run(i) };
        let all = CatalogueReport { runs: (0..50).rev().map(wide).collect(), more: 0 };
        let (length, read) = sent(all.clone());
        assert!(length <= TERMINATION_MESSAGE_LIMIT && !read.runs.is_empty(), "{length}");
        assert_eq!(read.runs[..], all.runs[..read.runs.len()]);
        assert_eq!(read.more, 50 - read.runs.len());
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
