//! Programs run in Pods, as `kubectl exec` runs them, without a process of its own for each. Talks to the cluster.

use std::pin::pin;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cluster::cluster;
use crate::command::Ended;

/// Short programs that run at a time. Where some thirty of a Pod end at once, containerd 1.6 hears of it half a minute later.
static SHORT: Semaphore = Semaphore::const_new(10);
/// A program that takes longer than this is not short, and others need not wait for it.
const SHORT_TIME: Duration = Duration::from_secs(3);

/// Runs a program in a Pod's first container to its end, with `input` on its standard input. A Pod where nothing can be run is a program
/// that did not end well.
pub fn exec(namespace: &str, pod: &str, arguments: &[&str], input: &[u8]) -> Ended {
    let in_turn = async {
        let turn = SHORT.acquire().await;
        let mut process = pin!(ended(namespace, pod, arguments, input));
        if let Ok(ended) = timeout(SHORT_TIME, &mut process).await {
            return ended;
        }
        drop(turn);
        process.await
    };
    cluster().block_on(in_turn).unwrap_or_else(|error| Ended {
        ok: false,
        stdout: Vec::new(),
        stderr: error.to_string(),
    })
}

async fn ended(namespace: &str, pod: &str, arguments: &[&str], input: &[u8]) -> Result<Ended, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(cluster().client(), namespace);
    let asked = AttachParams::default().stdin(!input.is_empty()).stdout(true).stderr(true);
    let mut process = pods.exec(pod, arguments.iter().copied(), &asked).await?;
    let (stdin, status) = (process.stdin(), process.take_status());
    let (stdout, stderr) = (process.stdout(), process.stderr());
    // Written beside the reading: a program that answers before it has read everything would block both.
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that ends without reading it all says why by its status.
            if stdin.write_all(input).await.is_ok() {
                stdin.shutdown().await.ok();
            }
        }
    };
    let (stdout, stderr, ()) = tokio::join!(all_of(stdout), all_of(stderr), write);
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let ok = status.as_ref().is_some_and(|status| status.status.as_deref() == Some("Success"));
    let mut stderr = String::from_utf8_lossy(&stderr).into_owned();
    if !ok {
        let why = status.and_then(|status| status.message).unwrap_or_else(|| "the connection to it ended".to_owned());
        stderr.push_str(&why);
    }
    Ok(Ended { ok, stdout, stderr })
}

async fn all_of(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(mut stream) = stream {
        // What came before the connection ended is told; that it ended is in the status, or in there being none.
        stream.read_to_end(&mut all).await.ok();
    }
    all
}
