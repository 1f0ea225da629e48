//! Claims and the Pods of applications that work with their files. Talks to the cluster.

use serde_json::{Value, json};

use crate::command::Ended;
use crate::exec::exec;
use crate::images;
use crate::space::Space;
use crate::wait::seconds;

/// A claim, in use by a Pod of the same name.
pub struct Volume<'a> {
    space: &'a Space,
    name: String,
}

/// Of everything in the claim but sockets its path, type, mode, owner, time of change, size, number of names, target and extended attributes, and of
/// files their hash. What has several names shows each time the first of them.
const CONTENTS: &str = r#"
set -euo pipefail
cd /claim
export LC_ALL=C
find . -mindepth 1 ! -path './lost+found*' ! -type s -printf '%i %n\t%p\t%y %m %U:%G %T@ %s %l\n' | sort -t "$(printf '\t')" -k 2 |
  awk -F '\t' '{ split($1, id, " "); if (!(id[1] in first)) first[id[1]] = $2
    rest = $3; if (rest ~ /^d/) { sub(/ [0-9]+ *$/, "", rest) }
    print $2 "\t" rest "\t" (rest ~ /^f/ && id[2] > 1 ? "same as " first[id[1]] : "") }'
find . -type f ! -path './lost+found*' -print0 | sort -z | xargs -0 -r sha256sum
find . -mindepth 1 ! -path './lost+found*' ! -type l ! -type s -print0 | sort -z | xargs -0 -r getfattr --no-dereference -d -m - --absolute-names
"#;

impl<'a> Volume<'a> {
    /// Makes a claim and starts a Pod that uses it as this user.
    pub fn start(space: &'a Space, name: &str, user: u32) -> Self {
        space.apply(&claim(name));
        Self::open(space, name, user)
    }

    /// Starts a Pod that uses a claim that is there.
    pub fn open(space: &'a Space, name: &str, user: u32) -> Self {
        space.apply(&images::claim_pod(name, name, user));
        space.wait("Pod", name, "runs", seconds(90), |pod| pod["status"]["phase"] == "Running");
        Self { space, name: name.to_owned() }
    }

    /// Runs a script in the claim's folder.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let ended = self.bash(&format!("set -euo pipefail; cd /claim; {script}"));
        assert!(ended.ok, "{script}: {}", ended.stderr);
        ended.text()
    }

    /// What is in it, as text that two equal claims have in common.
    #[track_caller]
    pub fn contents(&self) -> String {
        let ended = self.bash(CONTENTS);
        assert!(ended.ok, "{}", ended.stderr);
        ended.text()
    }

    /// Removes everything in it.
    #[track_caller]
    pub fn empty(&self) {
        self.sh("find . -mindepth 1 -delete");
    }

    /// Ends the Pod that uses it.
    pub fn close(&self) {
        self.space.force_delete_pod(&self.name);
        self.space.wait_gone("Pod", &self.name, seconds(60));
    }

    fn bash(&self, script: &str) -> Ended {
        exec(self.space.name(), &self.name, &["bash", "-s"], script.as_bytes())
    }
}

/// A claim of the default class that one node may use.
pub fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}
