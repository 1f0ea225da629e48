//! The parts of a status that all kinds share. Pure.

use holdfast_crds::{ConditionType, Reason, condition, merge_conditions};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// `old` with one condition set.
pub fn with_condition(
    old: &[Condition],
    type_: ConditionType,
    status: Option<bool>,
    reason: Reason,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    merge_conditions(old, vec![condition(type_, status, reason, message, generation, now)])
}

/// The condition of a type.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == type_.as_str())
}

/// The reason of a condition, where this version knows it.
pub fn reason_of(condition: &Condition) -> Option<Reason> {
    serde_json::from_value(condition.reason.clone().into()).ok()
}

/// From start to end as people write it: `45s`, `1m12s`, `2h3m`.
pub fn duration_text(start: Timestamp, end: Timestamp) -> String {
    let seconds = end.duration_since(start).as_secs().max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, _) => format!("{h}h{m}m"),
    }
}

/// `at` and `seconds` more; at the end of time where that is beyond it.
pub fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let table = [(0, "0s"), (45, "45s"), (72, "1m12s"), (3600, "1h0m"), (7384, "2h3m")];
        for (seconds, text) in table {
            assert_eq!(duration_text(at(1000), at(1000 + seconds)), text);
        }
        assert_eq!(duration_text(at(1000), at(900)), "0s", "a clock that went back is no negative duration");
    }
}
