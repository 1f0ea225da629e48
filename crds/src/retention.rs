//! What retention says: which backups of a policy stay. Pure data; the decision itself is the operator's `plan/retention`.

// The fields are called what users write, as in restic. On the module, because the derive repeats the struct.
#![allow(clippy::struct_field_names)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A backup stays if any of these rules keeps it. Whatever the rules say, the newest complete backup always stays, and failed runs
/// never count. Days, weeks, months and years are those of the policy's time zone.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.keepWithin) || [has(self.keepLast) ? self.keepLast : 0, has(self.keepHourly) ? self.keepHourly : 0, has(self.keepDaily) ? self.keepDaily : 0, has(self.keepWeekly) ? self.keepWeekly : 0, has(self.keepMonthly) ? self.keepMonthly : 0, has(self.keepYearly) ? self.keepYearly : 0].exists(n, n > 0)"
).message("needs at least one rule, such as keepLast: 7; to keep every backup for ever, leave retention out"))]
pub struct RetentionSpec {
    /// Keep the newest N complete backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub keep_last: Option<i32>,
    /// Keep every complete backup that is at most this much older than the newest one: a number and `h`, `d`, `w` or `y`
    /// (a week is 7 days, a year 365), such as `30d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,4}[hdwy]$')").message(
        "must be a number and a unit of h, d, w or y, such as 12h, 30d, 8w or 1y"
    ))]
    pub keep_within: Option<String>,
    /// Keep the newest complete backup of each of the last N hours that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub keep_hourly: Option<i32>,
    /// Keep the newest complete backup of each of the last N days that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub keep_daily: Option<i32>,
    /// Keep the newest complete backup of each of the last N weeks (Monday to Sunday) that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub keep_weekly: Option<i32>,
    /// Keep the newest complete backup of each of the last N months that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub keep_monthly: Option<i32>,
    /// Keep the newest complete backup of each of the last N years that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub keep_yearly: Option<i32>,
}

/// A parsed `keepWithin`, in whole hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeepWithin {
    /// Length in hours.
    pub hours: i64,
}

impl std::str::FromStr for KeepWithin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || format!("{text:?} is not a number and a unit of h, d, w or y, such as 30d");
        let unit = text.chars().last().ok_or_else(refuse)?;
        let number: i64 = text
            .strip_suffix(unit)
            .and_then(|n| n.parse().ok())
            .filter(|n| (1..=99_999).contains(n))
            .ok_or_else(refuse)?;
        let hours = match unit {
            'h' => 1,
            'd' => 24,
            'w' => 24 * 7,
            'y' => 24 * 365,
            _ => return Err(refuse()),
        };
        Ok(Self { hours: number * hours })
    }
}
