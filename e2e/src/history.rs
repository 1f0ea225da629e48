//! Everything that ever was in a namespace of one kind, also what has gone since. Talks to the API server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::{AsyncBufReadExt, TryStreamExt};
use http::Request;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::cluster::{cluster, path};
use crate::space::Space;

/// A watch that forgets nothing; it stops when it is dropped.
pub struct History {
    seen: Arc<Mutex<BTreeMap<String, Value>>>,
    watch: JoinHandle<()>,
}

impl History {
    /// Of a kind in a namespace, from now on.
    pub fn of(kind: &str, space: &Space) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let path = path(kind, space.name(), "");
        let watch = cluster().runtime().spawn(follow(path, Arc::clone(&seen)));
        Self { seen, watch }
    }

    /// Each object, as it was last.
    pub fn objects(&self) -> Vec<Value> {
        assert!(!self.watch.is_finished(), "the watch has ended before the test");
        self.seen.lock().unwrap().values().cloned().collect()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// A namespace that was just made holds nothing, so the watch may begin at any version.
async fn follow(path: String, seen: Arc<Mutex<BTreeMap<String, Value>>>) {
    let client = cluster().client();
    let request =
        Request::get(format!("/{path}?watch=1&resourceVersion=0&timeoutSeconds=3600")).body(Vec::new()).unwrap();
    let stream = client.request_stream(request).await.unwrap();
    let mut lines = std::pin::pin!(stream.lines());
    while let Ok(Some(line)) = lines.try_next().await {
        let event: Value = serde_json::from_str(&line).unwrap();
        let uid = event["object"]["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        seen.lock().unwrap().insert(uid, event["object"].clone());
    }
}
