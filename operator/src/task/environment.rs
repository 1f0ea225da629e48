//! A task as environment variables, and back: the kernel takes 128 KiB in one, so a large task travels in several. Pure.

use super::{TASK_ENV, Task};

/// At most this many bytes of a task travel in one variable. Linux takes 128 KiB, name and all (`MAX_ARG_STRLEN`).
pub const MOST_IN_A_VARIABLE: usize = 96 * 1024;

impl Task {
    /// The variables that carry the task, by name: [`TASK_ENV`], and `HOLDFAST_TASK_2`, `…_3` where it is large.
    pub fn to_environment(&self) -> Vec<(String, String)> {
        // A dollar stands in strings alone. The kubelet would take `$(NAME)` for a variable and `$$` for a dollar.
        let text = serde_json::to_string(self).unwrap_or_default().replace('$', "\\u0024");
        let mut rest = text.as_str();
        let mut variables = Vec::new();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.floor_char_boundary(MOST_IN_A_VARIABLE));
            variables.push((name_of(variables.len()), part.to_owned()));
            rest = after;
        }
        variables
    }

    /// The task that the variables carry. `get` looks one up by its name.
    ///
    /// # Errors
    /// Where there is none, or it cannot be read.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut text = get(TASK_ENV)
            .ok_or_else(|| format!("{TASK_ENV} is not set: a worker is started by the controller alone"))?;
        text.extend((1..).map_while(|index| get(&name_of(index))));
        serde_json::from_str(&text)
            .map_err(|e| format!("{TASK_ENV}: {e}: is the image of the Job that of the controller?"))
    }
}

fn name_of(index: usize) -> String {
    if index == 0 { TASK_ENV.to_owned() } else { format!("{TASK_ENV}_{}", index + 1) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use holdfast_crds::{Source, VolumeSource};

    use super::*;
    use crate::task::{BackupTask, Mounts, Scope, StorePatience, StoreTask};

    fn task(exclude: Vec<String>) -> Task {
        let volume = VolumeSource { claim_name: "uploads".into(), exclude, ..VolumeSource::default() };
        Task::Backup(Box::new(BackupTask {
            store: StoreTask {
                name: "main".into(),
                s3: holdfast_crds::S3Spec::default(),
                read_only: false,
                append_only: false,
                credentials: None,
                ca: None,
                recipients: vec![],
                identity: None,
                identity_secret: None,
                patience: StorePatience::default(),
            },
            scope: Scope {
                cluster_uid: "c".into(),
                namespace: "shop".into(),
                policy: "shop".into(),
                policy_uid: "u".into(),
            },
            backup: "b".into(),
            run_id: "r".into(),
            slot: jiff::Timestamp::UNIX_EPOCH,
            once: false,
            writer: None,
            run_sources: vec!["uploads".into()],
            source: Source { name: "uploads".into(), volume: Some(volume), ..Source::default() },
            safety_for: None,
            mounts: Mounts::default(),
            level: 3,
            timeout_seconds: 60,
            idle_timeout_seconds: 60,
        }))
    }

    fn there_and_back(task: &Task) -> (usize, Task) {
        let variables: BTreeMap<String, String> = task.to_environment().into_iter().collect();
        let count = variables.len();
        for (name, value) in &variables {
            assert!(name.len() + value.len() + 2 <= 128 * 1024, "{name} is {} bytes", value.len());
            assert!(!value.contains('$'), "the kubelet expands what follows a dollar");
        }
        (count, Task::from_environment(|name| variables.get(name).cloned()).unwrap())
    }

    #[test]
    fn a_task_of_any_size_comes_back_as_it_was() {
        for (globs, variables) in [
            (vec!["cache/**".to_owned()], 1),
            (vec!["$(HOLDFAST_POD_NAME)/$$x\\$".to_owned()], 1),
            // As many and as long as admission takes, of characters of one, of two and of four bytes.
            (vec!["x".repeat(1024); 100], 2),
            (vec!["ö".repeat(1024); 100], 3),
            (vec!["🗄".repeat(1024); 100], 5),
        ] {
            let task = task(globs);
            let (count, back) = there_and_back(&task);
            assert_eq!(back, task);
            assert_eq!(count, variables);
        }
    }

    #[test]
    fn what_is_no_task_is_told() {
        let read = |value: Option<&str>| {
            Task::from_environment(|name| value.filter(|_| name == TASK_ENV).map(str::to_owned)).unwrap_err()
        };
        assert!(read(None).contains("a worker is started by the controller alone"));
        assert!(read(Some("{\"kind\":\"Backup\"")).contains("is the image of the Job that of the controller?"));
    }
}
